// uPlot with this page's colours. A chart is drawn again when the theme changes, and follows its
// width.

const HEIGHT = 190;
const DAY_S = 86400;

export function colour(index) {
  return token(`--series-${(index % 4) + 1}`);
}

function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Seconds → the local time, as fine as the span that is shown asks for. */
export function timeText(seconds, span) {
  const time = new Date(seconds * 1000);
  if (span > 2 * DAY_S) return time.toLocaleDateString([], { day: "numeric", month: "short" });
  const second = span <= 180 ? "2-digit" : undefined;
  return time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second, hour12: false });
}

function axis(size, rest = {}) {
  const grid = { stroke: token("--line"), width: 1 };
  return {
    stroke: token("--muted"),
    grid,
    ticks: { ...grid, size: 4 },
    font: "12px system-ui, sans-serif",
    size,
    ...rest,
  };
}

const short = (value) =>
  value == null ? "N/A" : String(Number(value.toFixed(value < 10 ? 2 : 1)));

/** Places of values between two gaps. */
export function alone(values) {
  const isGap = (value) => value == null;
  return values.flatMap((value, place) =>
    !isGap(value) && isGap(values[place - 1]) && isGap(values[place + 1]) ? [place] : [],
  );
}

/** A line chart in `element`; `labels` name the series, `data` is [[seconds], [values], …].
    `colours` are places in the palette, one a series. With `band` the series are lowest, mean and
    highest of one thing. `max` fixes the top of the scale. */
export class Chart {
  constructor(
    element,
    labels,
    { max, band = false, colours = labels.map((_, index) => index) } = {},
  ) {
    Object.assign(this, { element, labels, max, band, colours });
    this.data = [[], ...labels.map(() => [])];
    this.span = null;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(element);
    this.redraw = () => this.draw();
    document.addEventListener("theme-changed", this.redraw);
    this.draw();
  }

  series(label, index) {
    const edge = this.band && index !== 1;
    return {
      label,
      stroke: colour(this.band ? 0 : this.colours[index]),
      width: edge ? 0 : 2,
      dash: this.band
        ? undefined
        : [[], [6, 3], [2, 2], [8, 3, 2, 3]][Math.floor(this.colours[index] / 4) % 4],
      // A point that has no neighbour makes no line: it is drawn by itself.
      points: {
        show: (plot, place) => alone(plot.data[place]).length > 0,
        filter: (plot, place) => alone(plot.data[place]),
        size: 5,
      },
      spanGaps: false,
      value: (_, value) => short(value),
    };
  }

  options() {
    const ceiling = this.max;
    const between = (plot) => plot.scales.x.max - plot.scales.x.min;
    const times = (plot, splits) => splits.map((split) => timeText(split, between(plot)));
    const range = (_, low, high) => [0, ceiling ?? Math.max((high ?? 0) * 1.15, 0.1)];
    return {
      width: this.element.clientWidth || 300,
      height: HEIGHT,
      padding: [8, 12, 0, 0],
      series: [
        {
          label: "Time",
          value: (plot, value) =>
            value == null ? "–" : timeText(value, Math.min(between(plot), DAY_S)),
        },
        ...this.labels.map((label, index) => this.series(label, index)),
      ],
      bands: this.band ? [{ series: [3, 1], fill: `${colour(0)}33` }] : [],
      scales: { x: { range: (_, low, high) => this.span ?? [low, high] }, y: { range } },
      axes: [axis(32, { values: times, space: 70 }), axis(44)],
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    };
  }

  draw() {
    this.plot?.destroy();
    this.plot = new uPlot(this.options(), this.data, this.element);
    this.newest();
  }

  /** Without a pointer over the chart the legend has the newest values. */
  newest() {
    const last = this.data[0].length - 1;
    if (last >= 0 && this.plot.cursor.idx == null) this.plot.setLegend({ idx: last });
  }

  resize() {
    const width = this.element.clientWidth;
    if (width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  /** `span`: [first second, last second] to show, also where there is no data. */
  set(data, span = null) {
    this.data = data;
    this.span = span;
    if (document.hidden) return;
    this.plot.setData(data);
    this.newest();
  }

  remove() {
    this.observer.disconnect();
    document.removeEventListener("theme-changed", this.redraw);
    this.plot.destroy();
  }
}
