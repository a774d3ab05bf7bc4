// One metric of the history: a chart with mean and range, the mean of an earlier span beside it, and
// a row of the table.

import { Chart } from "./chart.js";

const LABELS = ["lowest", "mean", "highest"];
const EARLIER = "mean before";
// Of uPlot.join: a gap stays one where the other span has points.
const EXPAND = 2;

/** What a metric was at each start → columns, with an empty place where time is missing. */
function columns({ starts, step_s: step }, metric, divide, shift = 0) {
  const found = [[], [], [], []];
  const lists = [metric.minimum, metric.mean, metric.maximum];
  let last = null;
  starts.forEach((start, place) => {
    if (last != null && start - last > 2.5 * step)
      [last + step + shift, null, null, null].forEach((value, index) => found[index].push(value));
    found[0].push(start + shift);
    lists.forEach((list, index) => {
      const value = list[place];
      found[index + 1].push(value == null ? null : value / divide);
    });
    last = start;
  });
  return found;
}

const known = (list) => list.filter((value) => value != null);
const average = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;

function cell(row, value, isText = false) {
  const made = row.insertCell();
  made.className = "num";
  if (value == null) made.textContent = "N/A";
  else made.textContent = isText ? value : String(Number(value.toFixed(1)));
}

export class FigureRow {
  constructor(figure, onZoom) {
    const { metric, title, unit, divide, top } = figure.dataset;
    Object.assign(this, { figure, metric, title, unit, onZoom });
    this.divide = Number(divide);
    this.max = top ? Number(top) : undefined;
    this.chart = null;
  }

  /** A chart with as many lines as there are spans. */
  chartFor(isCompared) {
    const labels = isCompared ? [...LABELS, EARLIER] : LABELS;
    if (this.chart?.labels.length === labels.length) return this.chart;
    this.chart?.remove();
    const { max, onZoom } = this;
    const options = { band: true, max, onZoom, colours: [0, 0, 0, 1] };
    this.chart = new Chart(this.figure.querySelector(".plot"), labels, options);
    return this.chart;
  }

  /** Draws it; the row of the table, null where nothing was measured in either span. */
  show(body, other, span, earlier) {
    const own = body.metrics[this.metric];
    const before = other?.metrics[this.metric];
    this.figure.hidden = !own && !before;
    if (this.figure.hidden) return null;
    const nothing = { minimum: [], mean: [], maximum: [] };
    const data = columns(own ? body : { starts: [] }, own ?? nothing, this.divide);
    // By whole steps, so that points lie above each other.
    const step = body.step_s || other?.step_s || 1;
    const shift = Math.round(earlier / step) * step;
    const past = before ? columns(other, before, this.divide, shift) : [[], [], [], []];
    const gaps = [Array(4).fill(EXPAND), Array(2).fill(EXPAND)];
    const drawn = other ? uPlot.join([data, [past[0], past[2]]], gaps) : data;
    this.chartFor(Boolean(other)).set(drawn, span, body.marks);
    return this.row(data, other ? past : null);
  }

  row([, low, mean, high], past) {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = this.unit ? `${this.title}, ${this.unit}` : this.title;
    row.append(head);
    const means = known(mean);
    const is = means.length ? average(means) : null;
    cell(row, means.length ? known(low).reduce((a, b) => Math.min(a, b)) : null);
    cell(row, is);
    cell(row, means.length ? known(high).reduce((a, b) => Math.max(a, b)) : null);
    if (past) {
      const before = known(past[2]);
      const was = before.length ? average(before) : null;
      cell(row, was);
      const change = is != null && was ? 100 * (is / was - 1) : null;
      const sign = change > 0 ? "+" : "";
      cell(row, change == null ? null : `${sign}${change.toFixed(1)} %`, true);
    }
    return row;
  }
}
