// The figures of an answer while it is made, one place each, so that only what changed is written.
// They are no live region: nobody wants to hear them three times a second.

const still = matchMedia("(prefers-reduced-motion: reduce)");
const COUNT_EVERY_MS = 100;
const COUNT_CALMLY_MS = 1000;

export class LiveFigures {
  constructor(list) {
    this.list = list;
    this.timer = 0;
    this.countedFrom = null;
  }

  /** These and no others, in this order. */
  show(figures) {
    if (!this.list) return;
    const items = figures.map((figure) => this.item(figure));
    const isSame =
      items.length === this.list.children.length &&
      items.every((item, i) => item === this.list.children[i]);
    if (!isSame) this.list.replaceChildren(...items);
    this.list.hidden = items.length === 0;
  }

  item({ name, text, title, is_wide: isWide }) {
    const known = this.list.querySelector(`[data-figure="${name}"]`);
    const item = known ?? document.createElement("li");
    item.dataset.figure = name;
    item.classList.toggle("wide", isWide);
    if (item.title !== title) item.title = title;
    if (name === "first_token") this.firstToken = { item, text };
    else if (item.textContent !== text) item.textContent = text;
    return item;
  }

  /** Counts the time to the first token up, until the server says what it was. */
  count(countingMs) {
    clearInterval(this.timer);
    // What was longer on its way would set the count back.
    const from = performance.now() - countingMs;
    this.countedFrom = countingMs === null ? null : Math.min(from, this.countedFrom ?? from);
    this.tick();
    if (this.countedFrom === null) return;
    this.timer = setInterval(() => this.tick(), still.matches ? COUNT_CALMLY_MS : COUNT_EVERY_MS);
  }

  tick() {
    if (!this.firstToken) return;
    const { item, text } = this.firstToken;
    if (!this.list.isConnected) clearInterval(this.timer);
    item.textContent = this.countedFrom === null ? text : `${text} ${this.seconds}`;
  }

  get seconds() {
    const seconds = (performance.now() - this.countedFrom) / 1000;
    return still.matches ? `${Math.floor(seconds)} s` : `${seconds.toFixed(1)} s`;
  }
}
