// Follows the end of the text, unless the reader has scrolled up.

const NEAR_PX = 60;

export class Scroller {
  constructor(root) {
    this.box = root.querySelector("[data-scroller]");
    this.button = root.querySelector("[data-jump]");
    this.pinned = true;
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.button.addEventListener("click", () => this.pin());
  }

  get atEnd() {
    return this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < NEAR_PX;
  }

  scrolled() {
    this.pinned = this.atEnd;
    this.button.hidden = this.pinned;
  }

  follow() {
    if (this.pinned) this.box.scrollTop = this.box.scrollHeight;
    this.button.hidden = this.pinned || this.atEnd;
  }

  pin() {
    this.pinned = true;
    this.follow();
  }
}
