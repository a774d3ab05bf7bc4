// The Plan page: proposed fixes turn the knobs, and what was opened or typed survives a new plan.

import { bytesText } from "./gauges.js";
import { connect } from "./socket.js";

const form = document.getElementById("plan-form");

// --- rows that open ----------------------------------------------------------------------------
// What somebody opened or closed by hand, by the id of the <details>: it stays so in every new plan.
const byHand = new Map();
const results = "#plan-results";

function show(row) {
  byHand.set(row.id, true);
  byHand.delete("plan-rest");
  restore();
}

function restore() {
  for (const [id, isOpen] of byHand) {
    const found = document.querySelector(`${results} details[id="${CSS.escape(id)}"]`);
    if (!found) continue;
    found.open = isOpen;
    const around = found.parentElement.closest("details");
    if (isOpen && around && !byHand.has(around.id)) around.open = true;
  }
}

document.addEventListener("click", (event) => {
  const summary = event.target.closest(`${results} summary`);
  if (summary) byHand.set(summary.parentElement.id, !summary.parentElement.open);
});

function openLinked() {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!row?.matches(".plan-row")) return;
  show(row.querySelector("details"));
  row.scrollIntoView();
}

addEventListener("hashchange", openLinked);
openLinked();

// --- proposed fixes ----------------------------------------------------------------------------
let pressed = "";

function changesOf(link) {
  const found = Object.entries(link.dataset).filter(([key]) => key.startsWith("set-"));
  return found.map(([, text]) => [
    text.slice(0, text.indexOf("=")),
    text.slice(text.indexOf("=") + 1),
  ]);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-set-1]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  for (const [name, value] of changesOf(link)) {
    const field = form.elements[name];
    if (field) field.value = value;
    field?.closest("details:not([open])")?.setAttribute("open", "");
  }
  // The link goes away with the reason; the row it stood in stays open.
  const row = link.closest(".plan-row > details");
  if (row) {
    byHand.set(row.id, true);
    pressed = row.firstElementChild.id;
  }
  form.dispatchEvent(new Event("input", { bubbles: true }));
});

// --- the name is part of the command -----------------------------------------------------------
function showName(input) {
  const name = input.value.trim() || input.defaultValue;
  for (const place of document.querySelectorAll(`#${input.dataset.nameOf} [data-alias]`))
    place.textContent = name;
}

document.addEventListener("input", (event) => {
  if (event.target.matches?.("[data-name-of]")) showName(event.target);
});

// --- swapping ----------------------------------------------------------------------------------
let typed = [];

document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id !== "plan-results") return;
  typed = [...document.querySelectorAll("[data-name-of]")]
    .filter((input) => input.value !== input.defaultValue)
    .map((input) => [input.id, input.value]);
});

document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "plan-results") return;
  restore();
  for (const [id, value] of typed) {
    const input = document.getElementById(id);
    if (!input) continue;
    input.value = value;
    showName(input);
  }
  document.getElementById(pressed)?.focus({ preventScroll: true });
  pressed = "";
});

document.body.addEventListener("htmx:afterSettle", () => {
  for (const box of form?.querySelectorAll("[id$=-errors]") ?? []) {
    const found = form.elements[box.id.slice(0, -"-errors".length)];
    for (const element of found instanceof RadioNodeList ? found : [found]) {
      if (box.firstElementChild) element?.setAttribute("aria-invalid", "true");
      else element?.removeAttribute("aria-invalid");
    }
  }
});

// --- what the devices hold now -----------------------------------------------------------------
function showUse(box, used) {
  if (used == null) return;
  const text = bytesText(used);
  const shown = box.querySelector("b");
  if (shown.textContent !== text) shown.textContent = text;
  box.querySelector("[data-known]").hidden = false;
  const meter = box.querySelector("meter");
  if (meter) meter.value = used;
}

if (form) {
  connect("/ws/telemetry/", {
    message(data) {
      const frame = data.type === "frame" ? data : data.frame;
      if (!frame) return;
      const used = new Map(frame.cards.map((card) => [card.key, card.memory_used_bytes]));
      used.set("host", frame.host.ram_used_bytes);
      for (const box of form.querySelectorAll("[data-use]"))
        showUse(box, used.get(box.dataset.use));
    },
  });
}
