// Whether the panel can still be reached. A socket whose packets are dropped on the way stays open
// for minutes and says nothing: so the panel is asked now and then, and no answer in time counts as
// a lost link.

import { below } from "./root.js";

const EVERY_MS = 5000;
const PATIENCE_MS = 6000;

let isLost = false;
let heardAt = 0;

/** A socket has brought something: the link is there, however busy the panel is. */
export function noteHeard() {
  heardAt = performance.now();
}

/** A socket has opened: the link is back before anybody looked, and may be lost again. */
export function noteOpened() {
  if (!isLost) return;
  isLost = false;
  document.dispatchEvent(new CustomEvent("link-found"));
}

async function answers() {
  try {
    const answer = await fetch(below("/healthz"), {
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    return answer.ok;
  } catch {
    return false;
  }
}

/** `tell(isUp)` whenever that changes; sockets hear "link-lost", "link-found", and open again. */
export function watchLink(tell) {
  async function look() {
    if (document.hidden) return;
    const begunAt = performance.now();
    const isUp = (await answers()) || heardAt > begunAt;
    if (document.hidden || isUp === !isLost) return;
    isLost = !isUp;
    document.dispatchEvent(new CustomEvent(isUp ? "link-found" : "link-lost"));
    tell(isUp);
  }
  let timer = setInterval(look, EVERY_MS);
  document.addEventListener("visibilitychange", () => {
    clearInterval(timer);
    timer = setInterval(look, EVERY_MS);
    look();
  });
}
