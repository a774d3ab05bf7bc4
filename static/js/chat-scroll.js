// Follows the end of the text, unless the reader has scrolled up.

const NEAR_PX = 60;
const SIDEWAYS_OVER_MS = 150;

export class Scroller {
  constructor(root) {
    this.box = root.querySelector("[data-scroller]");
    this.button = root.querySelector("[data-jump]");
    this.pinned = true;
    this.left = 0;
    this.sideways = 0;
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.button.addEventListener("click", () => this.pin());
  }

  get atEnd() {
    return this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < NEAR_PX;
  }

  scrolled() {
    if (this.box.scrollLeft !== this.left) return this.movedSideways();
    this.pinned = this.atEnd;
    this.button.hidden = this.pinned;
  }

  /** From lane to lane. Following would end the move; the next lane may be longer, so it is made up for. */
  movedSideways() {
    this.left = this.box.scrollLeft;
    clearTimeout(this.sideways);
    this.sideways = setTimeout(() => {
      this.sideways = 0;
      this.follow();
    }, SIDEWAYS_OVER_MS);
  }

  follow() {
    if (this.sideways) return;
    if (this.pinned) this.box.scrollTop = this.box.scrollHeight;
    this.button.hidden = this.pinned || this.atEnd;
  }

  pin() {
    this.pinned = true;
    this.follow();
  }
}
