// The rig, live: gauges from each frame, charts and a table of the last minutes.

import { Chart } from "./chart.js";
import { cardOf, rounded, showCard, showHost, stale } from "./gauges.js";
import { connect } from "./socket.js";

const KEPT_MS = 15 * 60 * 1000;
const STALE_MS = 4000;
const REFRESH_MS = 3000;
const REFRESHES = 10;
const GIB = 2 ** 30;
const LIVE = "Live";
// metric → position in a point's numbers (gpus/sample.py, CHARTED)
const METRICS = { memory: 0, utilisation: 1, temperature: 2, power: 3 };

let points = []; // [at ms, {card: [memory, utilisation, temperature, power]}]
let windowMs = 5 * 60 * 1000;
let keys = [];
let newest = 0; // the server's time of the last frame
let heardAt = 0; // this browser's time of it
let isUp = false;
const charts = new Map(); // metric → {chart, names}
const sampled = new Set(); // keys of all cards that frames ever had
let refreshes = 0;
let refreshedAt = 0;

// --- points ------------------------------------------------------------------------------------
function add(at, cards) {
  if (points.length && at <= points.at(-1)[0]) return;
  // A gap in time is a gap in the line.
  if (points.length && at - points.at(-1)[0] > STALE_MS) points.push([points.at(-1)[0] + 1, {}]);
  points.push([at, cards]);
  let old = 0;
  while (points[old][0] < at - KEPT_MS) old += 1;
  if (old) points.splice(0, old);
}

const hostNumbers = (cpu, ram) => [ram, cpu, null, null];

function numbersOf(frame) {
  const cards = frame.cards.map((card) => [
    card.key,
    [card.memory_used_bytes, card.utilisation_percent, card.temperature_celsius, card.power_watts],
  ]);
  return {
    ...Object.fromEntries(cards),
    host: hostNumbers(frame.host.cpu_percent, frame.host.ram_used_bytes),
  };
}

function shown() {
  const first = points.at(-1)[0] - windowMs;
  return points.slice(points.findIndex(([at]) => at >= first));
}

function valueOf(metric, numbers) {
  const value = numbers?.[METRICS[metric]] ?? null;
  return metric === "memory" && value != null ? value / GIB : value;
}

// --- charts ------------------------------------------------------------------------------------
const label = (key) => cardOf(key)?.dataset.label ?? key;

/** The chart of these cards; made again when others have something to show. */
function chartOf(figure, present) {
  const { metric, max } = figure.dataset;
  const known = charts.get(metric);
  const names = present.map(label);
  if (known?.names === names.join()) return known.chart;
  known?.chart.remove();
  const options = {
    max: max ? Number(max) : undefined,
    colours: present.map((key) => keys.indexOf(key)),
  };
  const chart = new Chart(figure.querySelector(".plot"), names, options);
  charts.set(metric, { chart, names: names.join() });
  return chart;
}

function drawOne(figure, visible, span) {
  const { metric } = figure.dataset;
  const columns = keys.map((key) => [key, visible.map(([, cards]) => valueOf(metric, cards[key]))]);
  const known = columns.filter(([, values]) => values.some((value) => value != null));
  figure.hidden = known.length === 0;
  if (known.length === 0) return;
  const times = visible.map(([at]) => at / 1000);
  chartOf(
    figure,
    known.map(([key]) => key),
  ).set([times, ...known.map(([, values]) => values)], span);
}

function draw() {
  if (document.hidden || !points.length) return;
  document.getElementById("no-points").hidden = true;
  document.getElementById("charts").hidden = false;
  keys = [...document.querySelectorAll("[data-card]")].map((card) => card.dataset.card);
  const visible = shown();
  const last = points.at(-1)[0];
  const span = [(last - windowMs) / 1000, last / 1000];
  for (const figure of document.querySelectorAll("figure[data-metric]"))
    drawOne(figure, visible, span);
}

function table() {
  const body = document.getElementById("chart-table");
  if (!points.length || !document.querySelector(".as-table").open) return;
  const visible = shown();
  const mean = (values) =>
    values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
  const most = (values) => (values.length ? values.reduce((a, b) => Math.max(a, b)) : null);
  body.replaceChildren(
    ...keys.map((key) => {
      const of = (metric) =>
        visible.map(([, cards]) => valueOf(metric, cards[key])).filter((value) => value != null);
      const memory = most(of("memory"));
      const row = document.createElement("tr");
      const name = document.createElement("th");
      name.scope = "row";
      name.textContent = label(key);
      row.append(name);
      for (const text of [
        rounded(mean(of("utilisation")), "%"),
        rounded(most(of("utilisation")), "%"),
        memory == null ? "N/A" : `${memory.toFixed(1)} GiB`,
        rounded(mean(of("power")), "W"),
        rounded(most(of("temperature")), "°C"),
      ]) {
        const cell = row.insertCell();
        cell.className = "num";
        cell.textContent = text;
      }
      return row;
    }),
  );
}

document.querySelector("[data-window]").parentElement.addEventListener("click", (event) => {
  const button = event.target.closest("[data-window]");
  if (!button) return;
  for (const other of document.querySelectorAll("[data-window]"))
    other.setAttribute("aria-pressed", String(other === button));
  windowMs = Number(button.dataset.window) * 60 * 1000;
  draw();
  table();
});

// --- the socket --------------------------------------------------------------------------------
function noteText(isOld) {
  if (!isUp) return newest ? "Not connected; the numbers are old" : "Connecting…";
  if (!newest) return "Waiting for the agent…";
  return isOld ? "No news from the agent; the numbers are old" : LIVE;
}

function note() {
  const element = document.getElementById("live-note");
  const isOld = Date.now() - heardAt > STALE_MS;
  const text = noteText(isOld);
  element.querySelector(".live-dot").dataset.up = text === LIVE ? "yes" : "no";
  const words = element.querySelector("[data-text]");
  if (words.textContent !== text) words.textContent = text;
  stale(Boolean(newest) && (!isUp || isOld));
}

function showFrame(frame) {
  newest = frame.at;
  frame.cards.forEach(showCard);
  showHost(frame.host);
  add(frame.at, numbersOf(frame));
  refreshCards(frame);
}

function receive(data) {
  if (data.type === "history") {
    points = [];
    for (const [at, cpu, ram, cards] of data.points)
      add(at, { ...cards, host: hostNumbers(cpu, ram) });
    if (data.frame) showFrame(data.frame);
  } else {
    heardAt = Date.now();
    showFrame(data);
  }
  note();
  draw();
}

// Cards that came or went: the server draws them. It may learn of them a moment after this page
// does.
function refreshCards(frame) {
  const now = new Set(frame.cards.map((card) => card.key));
  const isNew = frame.cards.some((card) => !cardOf(card.key));
  const isGone = [...sampled].some((key) => !now.has(key) && cardOf(key));
  now.forEach((key) => sampled.add(key));
  if (!isNew && !isGone) refreshes = 0;
  else if (refreshes < REFRESHES && Date.now() - refreshedAt > REFRESH_MS) {
    refreshes += 1;
    refreshedAt = Date.now();
    redrawCards();
  }
}

function redrawCards() {
  htmx.ajax("GET", location.pathname, { target: "#cards", select: "#cards", swap: "outerHTML" });
}

// What engines call the cards stands in no frame: the findings' answer tells it.
document.body.addEventListener("devices", ({ detail }) => {
  if (detail.value !== document.getElementById("cards").dataset.devices) redrawCards();
});

connect("/ws/telemetry/", {
  message: receive,
  status(up) {
    isUp = up;
    // A moment to hear the first frame in, before anything is called old.
    if (up) heardAt = Math.max(heardAt, Date.now() - STALE_MS / 2);
    note();
  },
});
setInterval(() => {
  note();
  table();
}, 2000);
document.querySelector(".as-table").addEventListener("toggle", table);
document.addEventListener("visibilitychange", draw);
