// Lanes side by side: which one is shown where there is room for one only, and going to one by
// keyboard.

export class Lanes {
  constructor(root) {
    this.root = root;
    this.box = root.querySelector("[data-scroller]");
    this.tabs = [...root.querySelectorAll("[data-tab]")];
    this.count = Number(root.dataset.lanes);
    if (this.count < 2) return;
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    for (const tab of this.tabs)
      tab.addEventListener("click", () => this.show(Number(tab.dataset.tab)));
    addEventListener("resize", () => this.scrolled());
    document.addEventListener("keydown", (event) => this.key(event));
  }

  heads() {
    return [...this.root.querySelectorAll(".lane-head")];
  }

  /** Lane after lane is a step as wide as from one head to the next. */
  get step() {
    const [first, second] = this.heads();
    return second.offsetLeft - first.offsetLeft;
  }

  scrolled() {
    const shown = Math.min(this.count, 1 + Math.round(this.box.scrollLeft / this.step));
    if (String(shown) === this.root.dataset.shown) return;
    this.root.dataset.shown = shown;
    for (const tab of this.tabs) {
      const isShown = Number(tab.dataset.tab) === shown;
      if (isShown) tab.setAttribute("aria-current", "true");
      else tab.removeAttribute("aria-current");
      if (isShown) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  /** The heads stay at the top, so only the way from left to right is gone. */
  show(number) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.box.dispatchEvent(new Event("lane-move"));
    this.heads()[number - 1].scrollIntoView({
      block: "nearest",
      inline: "nearest",
      behavior: still ? "instant" : "smooth",
    });
  }

  /** Alt+1 … Alt+4: to the lane's latest answer, or to its head where it has none. */
  key(event) {
    const number =
      event.altKey && !event.ctrlKey && !event.metaKey && !event.shiftKey
        ? Number(/^Digit([1-4])$/.exec(event.code)?.[1])
        : 0;
    if (!number || number > this.count) return;
    event.preventDefault();
    this.show(number);
    const latest = this.root.querySelector(
      `.turn-row:last-child .cell:nth-child(${number}) article`,
    );
    (latest ?? this.heads()[number - 1]).focus({ preventScroll: true });
  }
}

export const laneName = (article) =>
  article?.getAttribute("aria-label")?.replace(/^Lane \d+: /, "") ?? "";
