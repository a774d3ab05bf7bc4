// What was: a span of time of one subject, zoomed and moved, beside another span of the same length.

import { FigureRow } from "./history-figure.js";
import { MARKS } from "./chart.js";
import { localText, markRow, moment, stepText } from "./history-text.js";
import { logInAgain } from "./session.js";

const AGAIN_MS = 10000;
const SHORTEST_S = 120;
const LONGEST_S = 365 * 86400;

const section = document.getElementById("history");
const part = (name) => document.getElementById(`history-${name}`);
const now = () => Math.floor(Date.now() / 1000);
const asked = new URLSearchParams(location.search);
const { subject } = section.dataset;

/** `to` is null while the newest is followed. `compare`: nothing, "span", seconds, or "date". */
const view = {
  span: clamp(Number(asked.get("span")) || 3600),
  to: Number(asked.get("to")) || null,
  compare: asked.get("compare") ?? "",
};
const figures = [...section.querySelectorAll("figure[data-metric]")].map(
  (figure) => new FigureRow(figure, zoomTo),
);

function clamp(seconds) {
  return Math.round(Math.min(Math.max(seconds, SHORTEST_S), LONGEST_S));
}

const end = () => view.to ?? now();
const begin = () => end() - view.span;

// --- moving ------------------------------------------------------------------------------------
function go(from, to) {
  isTyped = false;
  view.span = clamp(to - from);
  view.to = to >= now() ? null : Math.round(to);
  load();
}

/** Around the middle, unless the newest is followed. */
function zoom(factor) {
  const span = clamp(view.span * factor);
  if (view.to == null && factor > 1) return go(now() - span, now());
  const middle = view.to == null ? now() - span / 2 : end() - view.span / 2;
  return go(middle - span / 2, middle + span / 2);
}

function zoomTo(from, to) {
  const middle = (from + to) / 2;
  const half = Math.max(to - from, SHORTEST_S) / 2;
  go(middle - half, middle + half);
}

function move(part) {
  go(begin() + part * view.span, end() + part * view.span);
}

const ACTIONS = {
  earlier: () => move(-0.5),
  later: () => move(0.5),
  in: () => zoom(0.5),
  out: () => zoom(2),
  newest: () => go(now() - view.span, now()),
};
const KEYS = { ArrowLeft: "earlier", ArrowRight: "later", "+": "in", "-": "out", End: "newest" };

// --- fields ------------------------------------------------------------------------------------
const secondsOf = (field) => new Date(field.value).getTime() / 1000;
// Dates that somebody has typed and not yet sent: the newest does not overwrite them.
let isTyped = false;

function write(field, seconds) {
  if (!isTyped && document.activeElement !== field) field.value = localText(seconds);
}

/** How many seconds earlier the other span begins; 0 for none. */
function shift() {
  if (view.compare === "span") return view.span;
  if (view.compare === "date") return Math.max(0, begin() - secondsOf(part("other"))) || 0;
  return Number(view.compare) || 0;
}

function showFields() {
  write(part("from"), begin());
  write(part("to"), end());
  part("compare").value = view.compare;
  part("other").closest(".field").hidden = view.compare !== "date";
  for (const button of section.querySelectorAll("[data-span]")) {
    const isOn = view.to == null && Number(button.dataset.span) === view.span;
    button.setAttribute("aria-pressed", String(isOn));
  }
  const query = new URLSearchParams({ subject, from: begin(), to: end() });
  part("export").href = `${section.dataset.export}?${query}`;
  const kept = new URLSearchParams({ subject, span: view.span });
  if (view.to != null) kept.set("to", view.to);
  if (view.compare && view.compare !== "date") kept.set("compare", view.compare);
  history.replaceState(history.state, "", `?${kept}`);
}

// --- showing -----------------------------------------------------------------------------------
function showMarks(marks) {
  const titleOf = (kind) => section.querySelector(`[data-kind="${kind}"]`)?.dataset.title ?? kind;
  part("mark-rows").replaceChildren(...marks.map((mark) => markRow(mark, titleOf(mark.kind))));
  part("marks").hidden = marks.length === 0;
}

function show(body, other, [from, to], earlier) {
  const shown = figures.map((each) => each.show(body, other, [from, to], earlier));
  const known = shown.filter(Boolean);
  const missing = figures.filter((_, place) => !shown[place]).map((each) => each.title);
  part("rows").replaceChildren(...known);
  part("table").hidden = part("charts").hidden = known.length === 0;
  part("empty").hidden = known.length > 0;
  part("missing").hidden = known.length === 0 || missing.length === 0;
  part("missing").textContent = `N/A in this span: ${missing.join(", ")}`;
  for (const head of section.querySelectorAll("[data-compared]")) head.hidden = !other;
  const beside = other ? `, beside the span from ${moment(from - earlier)} (dashed)` : "";
  const step = known.length ? `, a point every ${stepText(body.step_s)}` : "";
  part("span").textContent = `${moment(from)} to ${moment(to)}${step}${beside}`;
  showMarks(body.marks);
}

let wanted = 0;
async function points(from, to) {
  const query = new URLSearchParams({ subject, from: Math.max(0, Math.floor(from)), to: Math.ceil(to) });
  const answer = await fetch(`${section.dataset.url}?${query}`, {
    headers: { Accept: "application/json" },
  });
  if (answer.status === 401) logInAgain();
  return answer.ok ? answer.json() : null;
}

async function load() {
  showFields();
  const ticket = (wanted += 1);
  const [from, to, earlier] = [begin(), end(), shift()];
  let answers = [null];
  try {
    answers = await Promise.all([
      points(from, to),
      earlier ? points(from - earlier, to - earlier) : null,
    ]);
  } catch {
    answers = [null];
  }
  // Another span was asked for meanwhile.
  if (ticket !== wanted) return;
  const [body, other] = answers;
  part("no-answer").hidden = body != null;
  if (body) show(body, other, [from, to], earlier);
}

// --- what people do ----------------------------------------------------------------------------
section.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-span], button[data-do]");
  if (button?.dataset.span) {
    view.span = Number(button.dataset.span);
    ACTIONS.newest();
  }
  if (button?.dataset.do) ACTIONS[button.dataset.do]();
});
part("charts").addEventListener("keydown", (event) => {
  const action = KEYS[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  ACTIONS[action]();
});
part("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const [from, to] = [secondsOf(part("from")), secondsOf(part("to"))];
  part("bad").hidden = to - from >= 60;
  if (to - from >= 60) go(from, to);
});
for (const name of ["from", "to"])
  part(name).addEventListener("input", () => {
    isTyped = true;
  });
part("compare").addEventListener("change", ({ target }) => {
  view.compare = target.value;
  if (view.compare === "date") part("other").value = localText(begin() - view.span);
  load();
});
part("other").addEventListener("change", load);
document.getElementById("history-subject")?.addEventListener("change", ({ target }) => {
  const query = new URLSearchParams(location.search);
  query.set("subject", target.value);
  location.search = query;
});
for (const entry of section.querySelectorAll(".history-key [data-kind]"))
  entry.querySelector(".history-sign").textContent = MARKS[entry.dataset.kind][0];
load();
const isMissing = () => !part("no-answer").hidden;
const again = () => document.hidden || (view.to != null && !isMissing()) || load();
setInterval(again, AGAIN_MS);
document.body.addEventListener("resync", () => isMissing() && load());
document.addEventListener("visibilitychange", () => document.hidden || load());
