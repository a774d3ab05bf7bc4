// Votes on the answers of a turn: by button or by keyboard, and the way to what they reveal.

const VERDICTS = ["left", "right", "tie", "both_bad"];

export class Votes {
  constructor(root, { act, tell }) {
    this.root = root;
    this.act = act;
    this.tell = tell;
    // The turn of which this page has sent a verdict that has not come back yet.
    this.waitingFor = null;
    root.addEventListener("click", (event) => this.clicked(event));
    document.addEventListener("keydown", (event) => this.key(event));
  }

  clicked({ target }) {
    const button = target.closest("[data-vote], [data-reveal]");
    if (!button) return;
    const question = button.closest("[data-question]").dataset.question;
    if (button.matches("[data-reveal]")) this.send("reveal", question);
    else this.send("vote", question, button.dataset.vote);
  }

  /** Alt+Shift+1 … 4 vote on the last turn that asks for it. */
  key(event) {
    if (!event.altKey || !event.shiftKey || event.ctrlKey || event.metaKey) return;
    const number = Number(/^Digit([1-4])$/.exec(event.code)?.[1]);
    const button = [...this.root.querySelectorAll(`[data-vote="${VERDICTS[number - 1]}"]`)].at(-1);
    if (!button) return;
    event.preventDefault();
    button.click();
  }

  send(type, question, verdict) {
    if (this.act(type, { message: Number(question), verdict })) this.waitingFor = question;
  }

  /** The button that had the focus is gone: what it led to is shown, told, and has the focus. */
  shown() {
    if (!this.waitingFor) return;
    const verdict = document.querySelector(`#vote-${this.waitingFor} [data-verdict]`);
    if (!verdict) return;
    this.waitingFor = null;
    verdict.focus({ preventScroll: true });
    verdict.scrollIntoView({ block: "nearest" });
    this.tell(verdict.innerText.replaceAll(/\s+/g, " ").trim());
  }
}
