// uPlot with this page's colours. A chart is drawn anew when the theme or its width changes.

const HEIGHT = 190;

export function colour(index) {
  return token(`--series-${(index % 4) + 1}`);
}

function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axis(size, values) {
  const grid = { stroke: token("--line"), width: 1 };
  return { stroke: token("--muted"), grid, ticks: { ...grid, size: 4 }, font: "12px system-ui, sans-serif", size, values };
}

/** A line chart below `element`; `labels` name the series, `data` is [[seconds], [values], …]. */
export class Chart {
  constructor(element, labels, { max, bands = false } = {}) {
    this.element = element;
    this.labels = labels;
    this.max = max;
    this.bands = bands;
    this.data = [[], ...labels.map(() => [])];
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(element);
    document.addEventListener("theme-changed", () => this.draw());
    this.draw();
  }

  options() {
    const ceiling = this.max;
    const range = (_, low, high) => [0, ceiling ?? Math.max(high * 1.15, 0.1)];
    const series = this.labels.map((label, index) => ({
      label,
      stroke: colour(this.bands ? 0 : index),
      width: this.bands && index !== 1 ? 0 : 2,
      points: { show: false },
      spanGaps: false,
    }));
    const fill = this.bands ? `${colour(0)}33` : undefined;
    return {
      width: this.element.clientWidth || 300,
      height: HEIGHT,
      series: [{}, ...series],
      bands: this.bands ? [{ series: [3, 1], fill }] : [],
      scales: { y: { range } },
      axes: [axis(44), axis(44)],
      cursor: { y: false, points: { size: 6 } },
    };
  }

  draw() {
    this.plot?.destroy();
    this.plot = new uPlot(this.options(), this.data, this.element);
  }

  resize() {
    const width = this.element.clientWidth;
    if (width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  set(data) {
    this.data = data;
    if (!document.hidden) this.plot.setData(data);
  }

  remove() {
    this.observer.disconnect();
    this.plot.destroy();
  }
}
