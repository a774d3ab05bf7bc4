// The cards of the Rig page: numbers and meters from a frame.

const GIB = 2 ** 30;
const NORMAL = "power limit";

export function cardOf(key) {
  return document.querySelector(`[data-card="${CSS.escape(key)}"]`);
}

export function bytesText(value) {
  if (value == null) return "N/A";
  if (value >= GIB) return `${(value / GIB).toFixed(value >= 100 * GIB ? 0 : 1)} GiB`;
  return `${Math.round(value / 2 ** 20)} MiB`;
}

export const rounded = (value, unit) => (value == null ? "N/A" : `${Math.round(value)} ${unit}`);

function put(card, name, text) {
  const element = card.querySelector(`[data-value="${name}"]`);
  if (element && element.textContent !== text) element.textContent = text;
}

function gauge(card, name, value, text) {
  const meter = card.querySelector(`[data-meter="${name}"]`);
  if (!meter) return;
  meter.value = Number.isFinite(value) ? value : 0;
  meter.setAttribute("aria-valuetext", text);
}

function linkText(data) {
  if (!data.pcie_generation || !data.pcie_width) return "N/A";
  const lower =
    data.pcie_generation_max > data.pcie_generation || data.pcie_width_max > data.pcie_width;
  const best = lower ? ` (of ${data.pcie_generation_max} × ${data.pcie_width_max})` : "";
  return `Gen ${data.pcie_generation} × ${data.pcie_width}${best}`;
}

function powerText(data) {
  if (data.power_watts == null) return "N/A";
  return data.power_limit_watts
    ? `${Math.round(data.power_watts)} / ${Math.round(data.power_limit_watts)}\u00a0W`
    : rounded(data.power_watts, "W");
}

function problem(card, data) {
  const box = card.querySelector("[data-problem]");
  if (!box) return;
  const failed = data.state === "lost" || data.state === "error";
  box.hidden = !failed;
  const text = box.querySelector("p");
  if (failed && text.textContent !== data.error) text.textContent = data.error;
}

function slowed(card, data) {
  const line = card.querySelector("[data-slowed]");
  if (!line) return;
  const reasons = data.throttle ?? [];
  line.hidden = reasons.length === 0;
  // A busy card runs into its power limit: that is a fact, not a fault.
  line.toggleAttribute(
    "data-normal",
    reasons.every((reason) => reason === NORMAL),
  );
  const text = `Clocks held down by: ${reasons.join(", ")}`;
  if (line.textContent !== text) line.textContent = text;
}

export function showCard(data) {
  const card = cardOf(data.key);
  if (!card) return;
  const used = bytesText(data.memory_used_bytes);
  const busy = rounded(data.utilisation_percent, "%");
  put(card, "memory", used);
  if (data.memory_total_bytes) put(card, "memory-total", bytesText(data.memory_total_bytes));
  gauge(card, "memory", data.memory_used_bytes / data.memory_total_bytes, used);
  put(card, "utilisation", busy);
  gauge(card, "utilisation", data.utilisation_percent, busy);
  put(card, "temperature", rounded(data.temperature_celsius, "°C"));
  put(card, "power", powerText(data));
  put(card, "link", linkText(data));
  problem(card, data);
  slowed(card, data);
}

export function showHost(host) {
  const card = cardOf("host");
  const used = bytesText(host.ram_used_bytes);
  const busy = rounded(host.cpu_percent, "%");
  put(card, "memory", used);
  put(card, "memory-total", bytesText(host.ram_total_bytes));
  gauge(card, "memory", host.ram_used_bytes / host.ram_total_bytes, used);
  put(card, "utilisation", busy);
  gauge(card, "utilisation", host.cpu_percent, busy);
  put(card, "load", host.load_1.toFixed(2));
  put(card, "swap", bytesText(host.swap_used_bytes));
}

/** Old numbers look old. */
export function stale(isStale) {
  for (const card of document.querySelectorAll("[data-card]"))
    card.toggleAttribute("data-stale", isStale);
}
