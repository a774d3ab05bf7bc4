// Follows the end of the text, unless the reader has scrolled up: in the conversation, and in each
// lane by itself.

const NEAR_PX = 60;
const SIDEWAYS_OVER_MS = 150;

const isAtEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PX;

export class Scroller {
  constructor(root) {
    this.box = root.querySelector("[data-scroller]");
    this.button = root.querySelector("[data-jump]");
    this.pinned = true;
    this.left = 0;
    this.sideways = 0;
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.button.addEventListener("click", () => this.pin());
    // A scroll does not bubble.
    this.raised = new WeakSet();
    this.box.addEventListener("scroll", ({ target }) => this.cellScrolled(target), {
      capture: true,
      passive: true,
    });
  }

  /** A lane whose reader has scrolled up stays where it is; at its end it follows again. */
  cellScrolled(cell) {
    if (!cell.matches(".cell")) return;
    if (isAtEnd(cell)) this.raised.delete(cell);
    else this.raised.add(cell);
  }

  followCells() {
    for (const cell of this.box.querySelectorAll('.cell:has(> article[data-state="streaming"])')) {
      if (!this.raised.has(cell)) cell.scrollTop = cell.scrollHeight;
    }
  }

  get atEnd() {
    return isAtEnd(this.box);
  }

  scrolled() {
    if (this.box.scrollLeft !== this.left) return this.movedSideways();
    this.pinned = this.atEnd;
    this.button.hidden = this.pinned;
  }

  /** From lane to lane. Following would end the move; the next lane may be longer, so it is made up
      for. */
  movedSideways() {
    this.left = this.box.scrollLeft;
    clearTimeout(this.sideways);
    this.sideways = setTimeout(() => {
      this.sideways = 0;
      this.follow();
    }, SIDEWAYS_OVER_MS);
  }

  follow() {
    this.followCells();
    if (this.sideways) return;
    if (this.pinned) this.box.scrollTop = this.box.scrollHeight;
    this.button.hidden = this.pinned || this.atEnd;
  }

  pin() {
    this.pinned = true;
    this.follow();
  }
}
