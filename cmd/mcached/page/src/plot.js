// Line plots, by uPlot. Nothing here knows what is plotted.
import uPlot from "uplot";
import {bytes, colour, dateTime, el, ink, number, short, zone} from "./util.js";

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

/** Sums each line that is shown onto those before it. Gaps count as 0 below others, and stay gaps themselves. */
function stack([xs, ...ys], shown) {
  const sum = new Array(xs.length).fill(0);
  return [xs, ...ys.map((y, k) => shown[k] ? y.map((v, i) => v === null ? null : (sum[i] += v)) : y)];
}

/** What a logarithmic scale has a place for. */
const positive = ([xs, ...ys]) => [xs, ...ys.map(y => y.map(v => v > 0 ? v : null))];

/** The line below each one of a stack that is shown: what is between them is filled. */
function bands(shown) {
  const list = [];
  let below = 0;
  shown.forEach((on, k) => {
    if (!on) return;
    if (below) list.push({series: [k + 1, below]});
    below = k + 1;
  });
  return list;
}

// Steps of an axis of bytes: round ones in binary units.
const binary = Array.from({length: 60}, (_, i) => 2 ** i);

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
 * completeFrom (ms), exemplars, zoom(fromMs, toMs), cursor(index or null), said(text).
 * The pointer reads values, and so do the arrow keys, which also have them said.
 * The result: {data, show(i, on), destroy()}.
 */
export function plot(host, series, o) {
  const drawn = series.slice(0, maxLines);
  const data = columns(drawn, o.grid), shown = drawn.map(() => true);
  const show = o.show || short;
  const lines = () => o.stacked ? stack(data, shown) : o.log ? positive(data) : data;
  const tip = el("div", {class: "at", hidden: true});
  let nearest = null;
  const read = u => {
    const i = u.cursor.idx ?? null, k = drawn.length === 1 ? 0 : nearest;
    tip.hidden = i === null || k === null || !drawn[k] || data[k + 1][i] === null || u.cursor.left < 0;
    if (tip.hidden) return;
    tip.textContent = `${dateTime(data[0][i] * 1000)}\n${drawn[k].name}\n${show(data[k + 1][i])}`;
    const left = u.cursor.left, right = left > u.over.clientWidth / 2;
    tip.style.left = right ? "auto" : left + 12 + "px";
    tip.style.right = right ? u.over.clientWidth - left + 12 + "px" : "auto";
  };
  const axis = {stroke: () => ink("quiet"), grid: {stroke: () => ink("line"), width: 1}, ticks: {stroke: () => ink("line"), width: 1}, font: "11px system-ui, sans-serif"};
  const u = new uPlot({
    width: Math.max(200, host.clientWidth),
    height: o.height || 280,
    tzDate: t => zone.utc ? uPlot.tzDate(new Date(t * 1000), "Etc/UTC") : new Date(t * 1000),
    padding: [8, 22, 0, 0],
    legend: {show: false},
    cursor: {drag: {x: !!o.zoom, y: false, setScale: false}, focus: {prox: 24}, points: {size: 6}},
    focus: {alpha: 0.35},
    scales: {x: {time: true, range: () => [o.grid.from, Math.max(o.grid.to, o.grid.from + 1)]}, y: {distr: o.log ? 3 : 1, range: o.log ? logRange : range}},
    axes: [{...axis, values: times}, {...axis, size: 68, space: o.height < 200 ? 22 : 34, ...show === bytes ? {incrs: binary} : {}, values: (_, vs) => vs.map(v => v === null ? "" : show(v))}],
    series: [{}, ...drawn.map((s, i) => ({label: s.name, stroke: colour(i), width: 1.5, fill: o.stacked ? colour(i) + "44" : undefined, spanGaps: false, points: {show: (u, k) => lonely(u.data[k])}}))],
    bands: o.stacked ? bands(shown) : [],
    plugins: [shade(o.completeFrom ?? null), points(o.exemplars || [])],
    hooks: {
      setCursor: [u => { o.cursor?.(u.cursor.idx ?? null); read(u); }],
      setSeries: [(u, k) => { nearest = k === null ? null : k - 1; read(u); }],
      setSelect: [u => {
        if (!o.zoom || u.select.width < 4) return;
        o.zoom(u.posToVal(u.select.left, "x") * 1000, u.posToVal(u.select.left + u.select.width, "x") * 1000);
      }],
    },
  }, lines(), host);
  u.over.append(tip);
  u.root.setAttribute("role", "img");
  u.root.setAttribute("aria-label", o.label || `${drawn.length} lines from ${dateTime(o.grid.from * 1000)} to ${dateTime(o.grid.to * 1000)}`);
  u.root.tabIndex = 0;
  u.root.addEventListener("keydown", e => {
    const by = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity}[e.key];
    if (!by || e.altKey || e.ctrlKey || e.metaKey) return;
    e.preventDefault();
    const end = data[0].length - 1, i = Math.min(end, Math.max(0, (u.cursor.idx ?? (by > 0 ? -1 : end + 1)) + by));
    u.setCursor({left: u.valToPos(data[0][i], "x"), top: u.over.clientHeight / 2});
    const values = drawn.flatMap((s, k) => shown[k] && data[k + 1][i] !== null ? [`${s.name} ${show(data[k + 1][i])}`] : []);
    o.said?.(`${dateTime(data[0][i] * 1000)}: ${values.slice(0, 10).join(", ") || "no values"}`);
  });
  u.root.addEventListener("blur", () => { u.setCursor({left: -10, top: -10}); o.said?.(""); });
  const resized = new ResizeObserver(() => u.setSize({width: Math.max(200, host.clientWidth), height: o.height || 280}));
  resized.observe(host);
  return {
    data,
    show: (i, on) => {
      if (i >= drawn.length || shown[i] === on) return;
      shown[i] = on;
      u.setSeries(i + 1, {show: on});
      if (!o.stacked) return;
      u.delBand(null);
      for (const b of bands(shown)) u.addBand(b);
      u.setData(lines());
    },
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

/** Whole powers of ten. */
const logRange = (_, min, max) => min === null ? [0.1, 1] : uPlot.rangeLog(min, max, 10, true);

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
          values.forEach((b, k) => { const v = i === null ? summary(p.data[k + 1]).last : p.data[k + 1][i]; b.textContent = v === null ? "" : show(v); });
          now.textContent = i === null ? latest(p) : key ? dateTime(p.data[0][i] * 1000) : values[0].textContent + " at " + dateTime(p.data[0][i] * 1000);
        },
      });
      const latest = p => key ? "" : show(summary(p.data[1]).last ?? NaN);
      now.textContent = latest(p);
      if (key) values.forEach((b, k) => { const v = summary(p.data[k + 1]).last; b.textContent = v === null ? "" : show(v); });
    },
  };
}
