// One card's history from the roll-ups: mean as a line, minimum to maximum as a band.

import { Chart } from "./chart.js";

const section = document.getElementById("history");
const charts = new Map();
for (const figure of section.querySelectorAll("figure")) {
  charts.set(figure.dataset.metric, new Chart(figure.querySelector(".plot"), ["lowest", "mean", "highest"], { bands: true }));
}

async function load(minutes) {
  const answer = await fetch(`${section.dataset.url}?minutes=${minutes}`, { headers: { Accept: "application/json" } });
  if (!answer.ok) return;
  const { series } = await answer.json();
  let any = false;
  for (const [metric, chart] of charts) {
    const figure = chart.element.closest("figure");
    const rows = series[metric] ?? [];
    figure.hidden = rows.length === 0;
    if (!rows.length) continue;
    any = true;
    const divide = Number(figure.dataset.divide ?? 1);
    chart.set([rows.map((row) => row[0]), ...[1, 2, 3].map((place) => rows.map((row) => row[place] / divide))]);
  }
  document.getElementById("no-history").hidden = any;
}

section.addEventListener("click", (event) => {
  const button = event.target.closest("[data-minutes]");
  if (!button) return;
  for (const other of section.querySelectorAll("[data-minutes]")) other.setAttribute("aria-pressed", String(other === button));
  load(button.dataset.minutes);
});
load(section.querySelector("[data-minutes]").dataset.minutes);
setInterval(() => document.hidden || load(section.querySelector('[aria-pressed="true"]').dataset.minutes), 10000);
