// The text of one answer while it streams. Positions count code points, as the server does; what
// has settled is shown as HTML from the server, the rest behind it as plain text.

export class Stream {
  constructor(article) {
    this.article = article;
    this.have = { content: 0, thinking: 0 };
    this.settledThrough = 0;
    this.settledBox = article.querySelector("[data-settled]");
    this.tail = emptyText(article.querySelector("[data-tail]"));
    this.thinking = emptyText(article.querySelector("[data-track=thinking]"));
    this.liveLine = article.querySelector("[data-live]");
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

  /** The engine's own count so far. */
  live({ tps, tokens }) {
    this.liveLine.hidden = false;
    const rate = tps < 10 ? tps.toFixed(1) : Math.round(tps);
    this.liveLine.textContent = `Live: ${rate} tokens/s · ${tokens} tokens`;
  }

  /** What the answer waits for: a model that loads, or a place in the queue. */
  waiting(reason) {
    const line = this.article.querySelector("[data-working]");
    if (line) line.textContent = reason ? `Waiting: ${reason}…` : "Waiting for the engine…";
  }

  progress({ processed, total }) {
    const line = this.article.querySelector("[data-working]");
    if (line && total) line.textContent = `Reading the prompt: ${processed} of ${total} tokens…`;
  }
}

function emptyText(box) {
  const node = document.createTextNode("");
  box.replaceChildren(node);
  return node;
}
