// The rig, live: gauges from each frame, charts of the last minutes.

import { Chart, colour } from "./chart.js";
import { connect } from "./socket.js";

const WINDOW_MS = 5 * 60 * 1000;
const STALE_MS = 4000;
const GIB = 2 ** 30;
// metric → position in a point's numbers
const METRICS = { memory: 0, utilisation: 1, temperature: 2, power: 3 };

const points = []; // [at ms, {card: [memory, utilisation, temperature, power]}]
const charts = new Map();
let keys = [];
let lastFrame = 0;

const bytes = (value) => {
  if (value == null) return "N/A";
  if (value >= GIB) return `${(value / GIB).toFixed(value >= 100 * GIB ? 0 : 1)} GiB`;
  return `${Math.round(value / 2 ** 20)} MiB`;
};
const rounded = (value, unit) => (value == null ? "N/A" : `${Math.round(value)} ${unit}`);

// --- gauges ---------------------------------------------------------------------------------------
function put(card, name, text) {
  const element = card.querySelector(`[data-value="${name}"]`);
  if (element && element.textContent !== text) element.textContent = text;
}

function gauge(card, name, value) {
  const meter = card.querySelector(`[data-meter="${name}"]`);
  if (meter) meter.value = value ?? 0;
}

function linkText(card) {
  if (!card.pcie_generation) return "N/A";
  const best = card.pcie_generation_max && card.pcie_generation < card.pcie_generation_max ? ` (best ${card.pcie_generation_max})` : "";
  return `Gen ${card.pcie_generation}${best} × ${card.pcie_width}`;
}

function showCard(data) {
  const card = document.querySelector(`[data-card="${CSS.escape(data.key)}"]`);
  if (!card) return;
  put(card, "memory", bytes(data.memory_used_bytes));
  put(card, "memory-total", bytes(data.memory_total_bytes));
  gauge(card, "memory", data.memory_total_bytes ? (data.memory_used_bytes ?? 0) / data.memory_total_bytes : 0);
  put(card, "utilisation", rounded(data.utilisation_percent, "%"));
  gauge(card, "utilisation", data.utilisation_percent);
  put(card, "temperature", rounded(data.temperature_celsius, "°C"));
  put(card, "power", data.power_limit_watts ? `${rounded(data.power_watts, "W")} of ${Math.round(data.power_limit_watts)}` : rounded(data.power_watts, "W"));
  put(card, "link", linkText(data));
  const problem = card.querySelector("[data-problem]");
  const text = data.state === "lost" || data.state === "error" ? data.error : data.throttle?.length ? `Slowed down by: ${data.throttle.join(", ")}` : "";
  problem.hidden = !text;
  problem.querySelector("p").textContent = text;
}

function showHost(host) {
  const card = document.querySelector('[data-card="host"]');
  put(card, "memory", bytes(host.ram_used_bytes));
  put(card, "memory-total", bytes(host.ram_total_bytes));
  gauge(card, "memory", host.ram_used_bytes / host.ram_total_bytes);
  put(card, "utilisation", rounded(host.cpu_percent, "%"));
  gauge(card, "utilisation", host.cpu_percent);
  put(card, "load", host.load_1.toFixed(2));
  put(card, "swap", bytes(host.swap_used_bytes));
}

// --- charts ---------------------------------------------------------------------------------------
function add(at, cards) {
  points.push([at, cards]);
  while (points.length && points[0][0] < at - WINDOW_MS) points.shift();
}

function valueOf(metric, numbers) {
  const value = numbers?.[METRICS[metric]] ?? null;
  return metric === "memory" && value != null ? value / GIB : value;
}

function label(key) {
  return document.querySelector(`[data-card="${CSS.escape(key)}"]`)?.dataset.label ?? key;
}

function rebuild(found) {
  keys = found;
  charts.forEach((chart) => chart.remove());
  charts.clear();
  for (const figure of document.querySelectorAll("figure[data-metric]")) {
    const max = figure.dataset.max ? Number(figure.dataset.max) : undefined;
    charts.set(figure.dataset.metric, new Chart(figure.querySelector(".plot"), keys.map(label), { max }));
  }
  legend();
}

function legend() {
  const list = document.getElementById("legend");
  list.replaceChildren(...keys.map((key, index) => {
    const item = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = colour(index);
    item.append(swatch, label(key));
    return item;
  }));
}

function draw() {
  const found = [...new Set(points.flatMap(([, cards]) => Object.keys(cards)))];
  if (found.join() !== keys.join()) rebuild(found);
  const times = points.map(([at]) => at / 1000);
  for (const [metric, chart] of charts) {
    const columns = keys.map((key) => points.map(([, cards]) => valueOf(metric, cards[key])));
    const known = columns.some((column) => column.some((value) => value != null));
    chart.element.closest("figure").hidden = !known;
    if (known) chart.set([times, ...columns]);
  }
}

function table() {
  const rows = keys.map((key) => {
    const numbers = (metric) => points.map(([, cards]) => valueOf(metric, cards[key])).filter((value) => value != null);
    const use = numbers("utilisation");
    const memory = numbers("memory");
    const mean = use.length ? `${Math.round(use.reduce((a, b) => a + b, 0) / use.length)} %` : "N/A";
    const most = use.length ? `${Math.round(Math.max(...use))} %` : "N/A";
    const row = document.createElement("tr");
    for (const text of [label(key), mean, most, memory.length ? `${Math.max(...memory).toFixed(1)} GiB` : "N/A"]) {
      row.insertCell().textContent = text;
    }
    return row;
  });
  document.getElementById("chart-table").replaceChildren(...rows);
}

// --- the socket -----------------------------------------------------------------------------------
function note(up, text) {
  const element = document.getElementById("live-note");
  element.querySelector(".live-dot").dataset.up = up ? "yes" : "no";
  const words = element.querySelector("[data-text]");
  if (words.textContent !== text) words.textContent = text;
}

function receive(data) {
  if (data.type === "history") {
    points.length = 0;
    for (const [at, cpu, ram, cards] of data.points) {
      if (at > Date.now() - WINDOW_MS) add(at, { ...cards, host: [ram, cpu, null, null] });
    }
    if (points.length) draw();
    return;
  }
  lastFrame = Date.now();
  note(true, "Live");
  data.cards.forEach(showCard);
  showHost(data.host);
  const cards = Object.fromEntries(data.cards.map((card) => [card.key, [card.memory_used_bytes, card.utilisation_percent, card.temperature_celsius, card.power_watts]]));
  add(data.at, { ...cards, host: [data.host.ram_used_bytes, data.host.cpu_percent, null, null] });
  if (data.cards.some((card) => !document.querySelector(`[data-card="${CSS.escape(card.key)}"]`))) newCard();
  draw();
}

let reloading = false;
function newCard() {
  // A card this page was not made for: the server draws it.
  if (reloading) return;
  reloading = true;
  htmx.ajax("GET", location.pathname, { target: "#cards", select: "#cards", swap: "outerHTML" }).then(() => { reloading = false; rebuild(keys); });
}

connect("/ws/telemetry/", {
  message: receive,
  status: (up) => up || note(false, "Not connected; the numbers are old"),
});
setInterval(() => {
  if (lastFrame && Date.now() - lastFrame > STALE_MS) note(false, "No news from the agent; the numbers are old");
  if (document.querySelector(".as-table").open) table();
}, 2000);
document.querySelector(".as-table").addEventListener("toggle", table);
document.addEventListener("theme-changed", legend);
