// Where one writes: grows with the text, Enter sends, keeps a draft until it was sent.

import { Attachments } from "./chat-images.js";
import { isLoggingIn } from "./session.js";

const TALLEST_PX = 220;

export class Composer {
  constructor(root, { send, stop }) {
    this.form = root.querySelector("[data-composer]");
    if (!this.form) return;
    this.input = this.form.querySelector("textarea");
    this.sendButton = this.form.querySelector("[data-send]");
    this.stopButton = this.form.querySelector("[data-stop]");
    this.draftKey = `omni-draft-${root.dataset.conversation}`;
    this.send = send;
    this.images = new Attachments(root, this.form, () => this.input.focus());
    this.isBusy = false;
    this.lastSent = null;
    this.input.value = sessionStorage.getItem(this.draftKey) ?? "";
    this.input.addEventListener("input", () => this.changed());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.form.addEventListener("submit", (event) => this.submit(event));
    this.stopButton.addEventListener("click", stop);
    this.changed();
    document.addEventListener("session-ended", () => this.restore());
    // On a phone this would open the keyboard over the conversation.
    if (matchMedia("(pointer: fine)").matches) this.input.focus();
  }

  changed() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight + 2, TALLEST_PX)}px`;
    sessionStorage.setItem(this.draftKey, this.input.value);
  }

  key(event) {
    // While an input method composes a character, Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.form.requestSubmit();
  }

  submit(event) {
    event.preventDefault();
    const text = this.input.value.trim();
    // On the way to the log-in page nothing is sent: the draft waits for who comes back.
    if (this.isBusy || isLoggingIn() || !this.images.areReady()) return;
    const images = this.images.list();
    if ((!text && !images.length) || !this.send(text, images.map(({ id }) => id))) return;
    this.lastSent = { text, images };
    this.input.value = "";
    this.images.put([]);
    this.changed();
  }

  /** What was sent has arrived. */
  taken() {
    this.lastSent = null;
  }

  /** Brings back what was sent and refused, or has not arrived. */
  restore() {
    if (!this.form || !this.lastSent) return;
    if (this.input.value || this.images.list().length) return;
    this.input.value = this.lastSent.text;
    this.images.put(this.lastSent.images);
    this.lastSent = null;
    this.changed();
  }

  /** The link was lost and is back: what was sent meanwhile stands in the thread, or is given back.
      */
  cameBack(lastQuestion, lastImages) {
    const sent = this.lastSent?.images.map(({ url }) => url).join();
    if (lastQuestion === this.lastSent?.text && lastImages === sent) return this.taken();
    return this.restore();
  }

  busy(isBusy) {
    if (!this.form) return;
    const hadFocus = this.form.contains(document.activeElement);
    this.isBusy = isBusy;
    this.sendButton.hidden = isBusy;
    this.stopButton.hidden = !isBusy;
    if (hadFocus) this.input.focus();
  }
}
