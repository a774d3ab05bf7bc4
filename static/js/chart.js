// uPlot with this page's colours. A chart is drawn again when the theme changes, and follows its
// width.

const HEIGHT = 190;
// Narrower than its axes, uPlot fails to draw at all; a box may be so while the page changes.
const LEAST_WIDTH = 120;
const DAY_S = 86400;
const LEAST_DRAG_PX = 6;

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

/** The same with its day where the span is longer than one. */
function momentText(seconds, span) {
  const time = timeText(seconds, Math.min(span, DAY_S));
  return span > DAY_S ? `${timeText(seconds, Infinity)}, ${time}` : time;
}

/** What marks look like: a sign, so that colour is not all, and the name of a colour. */
export const MARKS = {
  started: ["▲", "--ok"],
  stopped: ["■", "--muted"],
  crashed: ["✕", "--bad"],
  run: ["◆", "--info"],
};

function drawMarks({ ctx, bbox, valToPos }, marks, [first, last]) {
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  ctx.textAlign = "center";
  ctx.textBaseline = "top";
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  for (const { at, kind } of marks) {
    if (at < first || at > last) continue;
    const [sign, colourName] = MARKS[kind] ?? MARKS.run;
    const x = Math.round(valToPos(at, "x", true));
    ctx.strokeStyle = ctx.fillStyle = token(colourName);
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top + 12 * devicePixelRatio);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillText(sign, x, bbox.top);
  }
  ctx.restore();
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
    highest of one thing, and a fourth is its mean at another time. `max` fixes the top of the
    scale. `onZoom` is told which seconds were chosen by dragging. `marks` are {at, kind}. */
export class Chart {
  constructor(
    element,
    labels,
    { max, band = false, colours = labels.map((_, index) => index), onZoom = null } = {},
  ) {
    Object.assign(this, { element, labels, max, band, colours, onZoom });
    this.marks = [];
    this.data = [[], ...labels.map(() => [])];
    this.span = null;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(element);
    this.redraw = () => this.draw();
    document.addEventListener("theme-changed", this.redraw);
    this.draw();
  }

  series(label, index) {
    const edge = this.band && (index === 0 || index === 2);
    return {
      label,
      stroke: colour(this.band && index < 3 ? 0 : this.colours[index]),
      width: edge ? 0 : 2,
      dash: this.band
        ? [undefined, undefined, undefined, [6, 3]][index]
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
    // The scales follow a moment after the data.
    const between = ({ scales: { x } }) =>
      this.span ? this.span[1] - this.span[0] : x.max - x.min;
    const times = (plot, splits) => splits.map((split) => timeText(split, between(plot)));
    const range = (_, low, high) => [0, ceiling ?? Math.max((high ?? 0) * 1.15, 0.1)];
    return {
      width: this.width(),
      height: HEIGHT,
      padding: [8, 12, 0, 0],
      series: [
        {
          label: "Time",
          value: (plot, value) =>
            value == null ? "–" : momentText(value, between(plot)),
        },
        ...this.labels.map((label, index) => this.series(label, index)),
      ],
      bands: this.band ? [{ series: [3, 1], fill: `${colour(0)}33` }] : [],
      scales: { x: { range: (_, low, high) => this.span ?? [low, high] }, y: { range } },
      axes: [axis(32, { values: times, space: 70 }), axis(44)],
      cursor: {
        y: false,
        points: { size: 6 },
        drag: { x: this.onZoom != null, y: false, setScale: false },
      },
      hooks: {
        draw: [(plot) => drawMarks(plot, this.marks, [plot.scales.x.min, plot.scales.x.max])],
        setSelect: [(plot) => this.selected(plot)],
      },
    };
  }

  selected(plot) {
    const { left, width } = plot.select;
    if (width < LEAST_DRAG_PX) return;
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.onZoom(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
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

  /** Of its box, in pixels; what a hidden one will have is not known yet. */
  width() {
    return Math.max(this.element.clientWidth || 300, LEAST_WIDTH);
  }

  resize() {
    const width = this.width();
    const isShown = this.element.clientWidth > 0;
    if (isShown && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  /** `span`: [first second, last second] to show, also where there is no data. */
  set(data, span = null, marks = []) {
    Object.assign(this, { data, span, marks });
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
