// Line plots, by uPlot. Nothing here knows what is plotted.
import uPlot from "uplot";
import {colour, dateTime, el, ink, number, short, zone} from "./util.js";

/** How many lines a plot draws at the most: more are not told apart. */
export const maxLines = 60;

/** The columns of uPlot for series of [seconds, "text"] on a grid. Times without a value are null: gaps. */
export function columns(series, {from, to, step}) {
  const n = Math.round((to - from) / step) + 1;
  const xs = Array.from({length: n}, (_, i) => from + i * step);
  const ys = series.map(s => {
    const y = new Array(n).fill(null);
    for (const [t, v] of s.values || []) {
      const i = Math.round((t - from) / step), x = number(v);
      if (i >= 0 && i < n && Number.isFinite(x)) y[i] = x;
    }
    return y;
  });
  return [xs, ...ys];
}

/** Sums each line onto those before it. Gaps count as 0 below others, and stay gaps themselves. */
function stack([xs, ...ys]) {
  const sum = new Array(xs.length).fill(0);
  return [xs, ...ys.map(y => y.map((v, i) => v === null ? null : (sum[i] += v)))];
}

/** Last, least, greatest and mean of a column. */
export function summary(y) {
  let last = null, min = Infinity, max = -Infinity, sum = 0, n = 0;
  for (const v of y) {
    if (v === null) continue;
    last = v;
    min = Math.min(min, v);
    max = Math.max(max, v);
    sum += v;
    n++;
  }
  return n ? {last, min, max, avg: sum / n} : {last: null, min: null, max: null, avg: null};
}

/** Shades what is left of a time, where the answer is incomplete. */
const shade = completeFrom => ({
  hooks: {
    drawClear: u => {
      if (completeFrom === null || completeFrom / 1000 <= u.scales.x.min) return;
      const {ctx, bbox} = u, right = Math.min(u.valToPos(completeFrom / 1000, "x", true), bbox.left + bbox.width);
      ctx.save();
      ctx.fillStyle = ink("line");
      ctx.globalAlpha = 0.6;
      ctx.fillRect(bbox.left, bbox.top, right - bbox.left, bbox.height);
      ctx.restore();
    },
  },
});

/** Draws points over the lines: [{t, v}], in seconds. */
const points = list => ({
  hooks: {
    draw: u => {
      const {ctx, bbox} = u;
      ctx.save();
      ctx.fillStyle = ink("bad");
      for (const {t, v} of list) {
        const x = u.valToPos(t, "x", true), y = u.valToPos(v, "y", true);
        if (x < bbox.left || x > bbox.left + bbox.width || !(y >= bbox.top && y <= bbox.top + bbox.height)) continue;
        ctx.beginPath();
        ctx.moveTo(x, y - 5);
        ctx.lineTo(x + 5, y);
        ctx.lineTo(x, y + 5);
        ctx.lineTo(x - 5, y);
        ctx.fill();
      }
      ctx.restore();
    },
  },
});

/**
 * Draws series into host. Options: grid, show (of a value), height, stacked, log,
 * completeFrom (ms), exemplars, zoom(fromMs, toMs), cursor(index or null).
 * The result: {data, show(i, on), destroy()}.
 */
export function plot(host, series, o) {
  const drawn = series.slice(0, maxLines);
  const data = columns(drawn, o.grid);
  const show = o.show || short;
  const axis = {stroke: () => ink("quiet"), grid: {stroke: () => ink("line"), width: 1}, ticks: {stroke: () => ink("line"), width: 1}, font: "11px system-ui, sans-serif"};
  const u = new uPlot({
    width: Math.max(200, host.clientWidth),
    height: o.height || 280,
    tzDate: t => zone.utc ? uPlot.tzDate(new Date(t * 1000), "Etc/UTC") : new Date(t * 1000),
    padding: [8, 8, 0, 0],
    legend: {show: false},
    cursor: {drag: {x: !!o.zoom, y: false, setScale: false}, focus: {prox: 24}, points: {size: 6}},
    focus: {alpha: 0.35},
    scales: {x: {time: true, range: () => [o.grid.from, Math.max(o.grid.to, o.grid.from + 1)]}, y: {distr: o.log ? 3 : 1, range: o.log ? undefined : range}},
    axes: [{...axis, values: times}, {...axis, size: 68, values: (_, vs) => vs.map(v => v === null ? "" : show(v))}],
    series: [{}, ...drawn.map((s, i) => ({label: s.name, stroke: colour(i), width: 1.5, fill: o.stacked ? colour(i) + "44" : undefined, spanGaps: false, points: {show: (u, k) => lonely(u.data[k])}}))],
    plugins: [shade(o.completeFrom ?? null), points(o.exemplars || [])],
    hooks: {
      setCursor: [u => o.cursor && o.cursor(u.cursor.idx ?? null)],
      setSelect: [u => {
        if (!o.zoom || u.select.width < 4) return;
        o.zoom(u.posToVal(u.select.left, "x") * 1000, u.posToVal(u.select.left + u.select.width, "x") * 1000);
      }],
    },
  }, o.stacked ? stack(data) : data, host);
  u.root.setAttribute("role", "img");
  u.root.setAttribute("aria-label", o.label || `${drawn.length} lines from ${dateTime(o.grid.from * 1000)} to ${dateTime(o.grid.to * 1000)}`);
  const resized = new ResizeObserver(() => u.setSize({width: Math.max(200, host.clientWidth), height: o.height || 280}));
  resized.observe(host);
  return {
    data,
    show: (i, on) => i < drawn.length && u.setSeries(i + 1, {show: on}),
    destroy: () => { resized.disconnect(); u.destroy(); },
  };
}

/** Whether there are values with nothing on either side, which no line would show. */
const lonely = y => y.some((v, i) => v !== null && (i === 0 || y[i - 1] === null) && (i === y.length - 1 || y[i + 1] === null));

/** Ticks of time: as fine as their distance, with the date where a day begins and at the first. */
function times(_, splits, __, ___, incr) {
  let day = "";
  return splits.map(t => {
    const [date, time] = dateTime(t * 1000).split(" "), first = date !== day;
    day = date;
    const text = incr >= 86400 ? date.slice(5) : incr >= 60 ? time.slice(0, 5) : time;
    return first && incr < 86400 ? `${text}\n${date}` : text;
  });
}

/** From 0, unless all is far from it. */
function range(_, min, max) {
  if (min === null) return [0, 1];
  if (min > 0 && min < max * 0.8) min = 0;
  if (min === max) return [Math.min(0, min * 2), max > 0 ? max * 1.2 : max === 0 ? 1 : 0];
  const pad = (max - min) * 0.06;
  return [min === 0 ? 0 : min - pad, max + pad];
}

/** A small figure with a caption and a key, for the status view. */
export function figure(title, series, grid, show) {
  const host = el("div"), now = el("b"), lines = series.slice(0, 12);
  const key = lines.length > 1 ? el("ul", {class: "key"}) : null;
  const values = lines.map((s, i) => {
    const swatch = el("span", {class: "swatch"}), value = el("b");
    swatch.style.background = colour(i);
    if (key) key.append(el("li", {}, swatch, s.name + " ", value));
    return value;
  });
  const f = el("figure", {}, el("figcaption", {}, el("h3", {text: title}), now), host, key);
  if (!lines.length) {
    host.append(el("p", {class: "quiet", text: "nothing in this window"}));
    return {figure: f, draw() {}};
  }
  return {
    figure: f,
    draw() {
      const p = plot(host, lines, {
        grid, show, height: 130, label: title,
        cursor: i => {
          values.forEach((b, k) => { b.textContent = i === null || p.data[k + 1][i] === null ? "" : show(p.data[k + 1][i]); });
          now.textContent = i === null ? latest(p) : key ? dateTime(p.data[0][i] * 1000) : values[0].textContent + " at " + dateTime(p.data[0][i] * 1000);
        },
      });
      const latest = p => key ? "" : show(summary(p.data[1]).last ?? NaN);
      now.textContent = latest(p);
    },
  };
}
