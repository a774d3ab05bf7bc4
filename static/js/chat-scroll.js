// Follows the end of the text, unless the reader has scrolled up: in the conversation, and in each
// lane by itself.

const NEAR_PX = 60;
// How long a move from lane to lane may show nothing new before it counts as over; browsers that
// tell when a scroll ends are asked, and a slow one may take long from frame to frame.
const SIDEWAYS_OVER_MS = "onscrollend" in window ? 1000 : 150;

const isAtEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_PX;

export class Scroller {
  constructor(root) {
    this.box = root.querySelector("[data-scroller]");
    this.button = root.querySelector("[data-jump]");
    this.pinned = true;
    this.left = 0;
    this.sideways = 0;
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.box.addEventListener("scrollend", ({ target }) => {
      if (target === this.box && this.sideways) this.arrived();
    });
    // It begins before anything moves: following in between would end it.
    this.box.addEventListener("lane-move", () => this.moving());
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
    this.moving();
  }

  moving() {
    clearTimeout(this.sideways);
    this.sideways = setTimeout(() => this.arrived(), SIDEWAYS_OVER_MS);
  }

  arrived() {
    clearTimeout(this.sideways);
    this.sideways = 0;
    this.follow();
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
