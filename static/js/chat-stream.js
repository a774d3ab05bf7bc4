// The text of one answer while it streams. Positions count code points, as the server does; what
// has settled is shown as HTML from the server, the rest behind it as plain text.

import { LiveFigures } from "./chat-figures.js";

export class Stream {
  constructor(article) {
    this.article = article;
    this.have = { content: 0, thinking: 0 };
    this.settledThrough = 0;
    this.liveAtS = 0;
    this.settledBox = article.querySelector("[data-settled]");
    this.tail = emptyText(article.querySelector("[data-tail]"));
    this.thinking = emptyText(article.querySelector("[data-track=thinking]"));
    this.figures = new LiveFigures(article.querySelector("[data-live-figures]"));
  }

  /** True when the text was taken or already known; false when something before it is missing. */
  take(track, offset, text) {
    const have = this.have[track];
    if (offset > have) return false;
    const points = [...text];
    const fresh = points.slice(have - offset);
    if (!fresh.length) return true;
    this.have[track] += fresh.length;
    (track === "thinking" ? this.thinking : this.tail).appendData(fresh.join(""));
    if (track === "thinking") this.article.querySelector("[data-thinking]").hidden = false;
    this.article.querySelector("[data-working]")?.remove();
    return true;
  }

  /** HTML for the first `through` code points; false when fewer than those have come. */
  settle(html, through) {
    if (through <= this.settledThrough) return true;
    if (through > this.have.content) return false;
    this.settledBox.innerHTML = html;
    this.tail.data = [...this.tail.data].slice(through - this.settledThrough).join("");
    this.settledThrough = through;
    return true;
  }

  /** What the answer waits for, and its figures so far; news that newer ones overtook is none. */
  live({ doing, counting_ms: countingMs, figures, at_s: atS }) {
    if (atS < this.liveAtS) return;
    this.liveAtS = atS;
    const line = this.article.querySelector("[data-working]");
    if (line && doing) line.textContent = doing;
    this.figures.show(figures);
    this.figures.count(countingMs);
  }
}

function emptyText(box) {
  const node = document.createTextNode("");
  box.replaceChildren(node);
  return node;
}
