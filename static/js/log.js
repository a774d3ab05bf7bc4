// The end of an instance's log: it follows while the reader is at the bottom, and stands still when
// not.

import { connect } from "./socket.js";

const MAX_CHARACTERS = 400_000;
const AT_BOTTOM_PX = 24;

function follow(box) {
  const output = box.querySelector("pre");
  const state = box.querySelector("[data-log-state]");
  const pauseButton = box.querySelector("[data-log-pause]");
  const wrapButton = box.querySelector("[data-log-wrap]");
  let paused = false;
  let waiting = "";
  let frame = 0;

  function show(text, replace = false) {
    const stick =
      replace || output.scrollHeight - output.scrollTop - output.clientHeight < AT_BOTTOM_PX;
    if (replace) output.textContent = "";
    output.append(text);
    if (output.textContent.length > MAX_CHARACTERS) trim();
    if (stick) output.scrollTop = output.scrollHeight;
  }

  // Whole lines go, the oldest first.
  function trim() {
    const kept = output.textContent.slice(-MAX_CHARACTERS * 0.8);
    output.textContent = kept.slice(kept.indexOf("\n") + 1);
  }

  // Many messages in one frame are one change of the page.
  function flush() {
    frame = 0;
    if (paused || !waiting) return;
    const text = waiting;
    waiting = "";
    show(text);
  }

  function receive(data) {
    if (data.type === "reset") {
      waiting = "";
      show(data.text && !data.text.endsWith("\n") ? `${data.text}\n` : data.text, true);
      return;
    }
    waiting = (waiting + data.text).slice(-MAX_CHARACTERS);
    if (!frame) frame = requestAnimationFrame(flush);
  }

  function describe(up) {
    if (!up) state.textContent = "Connecting …";
    else state.textContent = paused ? "Paused" : "Live";
  }

  pauseButton.addEventListener("click", () => {
    paused = !paused;
    pauseButton.setAttribute("aria-pressed", String(paused));
    pauseButton.textContent = paused ? "Resume" : "Pause";
    describe(true);
    if (!paused) flush();
  });
  wrapButton.addEventListener("click", () => {
    const wraps = output.classList.toggle("wrap");
    wrapButton.setAttribute("aria-pressed", String(wraps));
  });
  box.querySelector("[data-log-download]").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([output.textContent], { type: "text/plain" }));
    link.download = box.dataset.logName;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  connect(box.dataset.log, { message: receive, status: describe });
}

document.querySelectorAll("[data-log]").forEach(follow);
