// The rig file's page: line numbers beside the text, a chosen file read into it, and no stale
// preview applied.

import { toast } from "./app.js";

const MAX_BYTES = 4_000_000;
const text = document.getElementById("rig-text");
const gutter = document.querySelector("[data-gutter]");
const upload = document.getElementById("rig-upload");
const take = document.querySelector("[data-take]");

// --- line numbers ------------------------------------------------------------------------------
const wrong = new Set(
  [...document.querySelectorAll("[data-go-line]")].map((button) => Number(button.dataset.goLine)),
);
let shownLines = 0;

function number() {
  const lines = text.value.split("\n").length;
  if (lines === shownLines) return;
  shownLines = lines;
  const parts = Array.from({ length: lines }, (_, index) => {
    const mark = document.createElement(wrong.has(index + 1) ? "b" : "span");
    mark.textContent = `${index + 1}\n`;
    return mark;
  });
  gutter.replaceChildren(...parts);
}

function follow() {
  gutter.scrollTop = text.scrollTop;
}

function goTo(line) {
  const lines = text.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
  text.focus();
  text.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
  text.scrollTop = (line - 3) * parseFloat(getComputedStyle(text).lineHeight);
}

// --- what was previewed ------------------------------------------------------------------------
const apply = document.querySelector("[data-apply]");
const stale = document.querySelector("[data-stale]");
const form = document.getElementById("rig-form");
const state = () => JSON.stringify([text.value, form.elements.start.checked]);
const previewed = text && state();

function compare() {
  if (!apply) return;
  apply.disabled = state() !== previewed;
  stale.hidden = !apply.disabled;
}

/** Replaces the text in a way that Ctrl+Z takes back. */
function replaceText(value) {
  text.focus();
  text.select();
  if (!document.execCommand("insertText", false, value)) text.value = value;
  text.setSelectionRange(0, 0);
  text.dispatchEvent(new Event("input", { bubbles: true }));
}

async function readChosen() {
  const [file] = upload.files;
  if (!file) return;
  if (file.size > MAX_BYTES) {
    toast(`${file.name} is too large for a rig file.`, "bad");
  } else {
    replaceText((await file.text()).replaceAll("\r\n", "\n"));
    toast(`${file.name} is in the text now; Ctrl+Z takes it back.`, "ok");
  }
  // The text is what is sent.
  upload.value = "";
}

if (text) {
  text.addEventListener("input", () => {
    number();
    compare();
  });
  text.addEventListener("scroll", follow);
  form.elements.start.addEventListener("change", compare);
  upload.addEventListener("change", readChosen);
  take.hidden = false;
  take.addEventListener("click", () =>
    replaceText(document.querySelector(take.dataset.take).textContent),
  );
  document.querySelectorAll("[data-go-line]").forEach((button) => {
    button.addEventListener("click", () => goTo(Number(button.dataset.goLine)));
  });
  number();
  // One that was chosen before this ran, or that the browser kept over a reload.
  readChosen();
  if (document.getElementById("result").children.length) document.getElementById("result").focus();
}
