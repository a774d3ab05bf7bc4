// One card's history from the roll-ups: mean as a line, lowest to highest as a band, and a table.

import { Chart } from "./chart.js";
import { logInAgain } from "./session.js";

const AGAIN_MS = 10000;
const section = document.getElementById("history");
const charts = new Map();
for (const figure of section.querySelectorAll("figure")) {
  const max = figure.dataset.max ? Number(figure.dataset.max) : undefined;
  charts.set(
    figure.dataset.metric,
    new Chart(figure.querySelector(".plot"), ["lowest", "mean", "highest"], { band: true, max }),
  );
}

/** Rows [seconds, lowest, mean, highest] → columns, with an empty place where something is missing.
    */
function columns(rows, divide, resolution) {
  const found = [[], [], [], []];
  let last = null;
  for (const [at, ...values] of rows) {
    if (last != null && at - last > 2.5 * resolution)
      [last + resolution, null, null, null].forEach((value, place) => found[place].push(value));
    found[0].push(at);
    values.forEach((value, place) => found[place + 1].push(value / divide));
    last = at;
  }
  return found;
}

function row(name, values) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  line.append(head);
  for (const value of values) {
    const cell = line.insertCell();
    cell.className = "num";
    cell.textContent = Number(value.toFixed(1));
  }
  return line;
}

function summary(figure, [, low, mean, high]) {
  const known = (list) => list.filter((value) => value != null);
  const means = known(mean);
  const average = means.reduce((a, b) => a + b, 0) / means.length;
  const least = known(low).reduce((a, b) => Math.min(a, b));
  const most = known(high).reduce((a, b) => Math.max(a, b));
  return row(figure.querySelector("figcaption").textContent.split(":")[0], [least, average, most]);
}

function show({ series, resolution_s: resolution }, minutes) {
  const now = Date.now() / 1000;
  const lines = [];
  for (const [metric, chart] of charts) {
    const figure = chart.element.closest("figure");
    const rows = series[metric] ?? [];
    figure.hidden = rows.length === 0;
    if (!rows.length) continue;
    const data = columns(rows, Number(figure.dataset.divide ?? 1), resolution);
    chart.set(data, [now - minutes * 60, now]);
    lines.push(summary(figure, data));
  }
  document.querySelector("#history-table tbody").replaceChildren(...lines);
  document.getElementById("history-table").hidden = lines.length === 0;
  document.getElementById("no-history").hidden = lines.length > 0;
}

let wanted = 0;
async function load() {
  const minutes = section.querySelector('[aria-pressed="true"]').dataset.minutes;
  const ticket = (wanted += 1);
  let body = null;
  try {
    const answer = await fetch(`${section.dataset.url}?minutes=${minutes}`, {
      headers: { Accept: "application/json" },
    });
    if (answer.status === 401) return logInAgain();
    if (answer.ok) body = await answer.json();
  } catch {
    body = null;
  }
  // Another span was asked for meanwhile.
  if (ticket !== wanted) return;
  document.getElementById("no-answer").hidden = body != null;
  if (body) show(body, Number(minutes));
}

section.addEventListener("click", (event) => {
  const button = event.target.closest("[data-minutes]");
  if (!button) return;
  for (const other of section.querySelectorAll("[data-minutes]"))
    other.setAttribute("aria-pressed", String(other === button));
  load();
});
load();
setInterval(() => document.hidden || load(), AGAIN_MS);
document.addEventListener("visibilitychange", () => document.hidden || load());
