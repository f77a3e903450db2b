// Native histograms: a heat map over time, and the buckets of one.
import {dateTime, el, ink, number, short} from "./util.js";

/** The buckets of one histogram as numbers: [{low, high, count}]. */
export const buckets = h => (h.buckets || []).map(([, low, high, count]) => ({low: number(low), high: number(high), count: number(count)}));

/** A table of the buckets of a histogram, with bars. */
export function bucketTable(h) {
  const all = buckets(h), most = Math.max(...all.map(b => b.count), 1);
  return el("table", {class: "buckets"}, el("caption", {text: `${short(number(h.count))} observations, sum ${short(number(h.sum))}`}), el("tbody", {}, ...all.map(b => {
    const bar = el("span", {class: "bucket"});
    bar.style.width = 100 * b.count / most + "%";
    return el("tr", {}, el("td", {class: "n", text: `${short(b.low)} – ${short(b.high)}`}), el("td", {class: "bars"}, bar), el("td", {class: "n", text: short(b.count)}));
  })));
}

const left = 60, bottom = 22, maxRows = 200;

/** Draws [[seconds, histogram]] on a grid into host, says in readout what the pointer is over, and zooms to what it is dragged over. */
export function heatMap(host, values, {from, to, step}, {readout, zoom}) {
  const canvas = el("canvas", {role: "img", "aria-label": `Heat map of ${values.length} histograms`});
  host.append(canvas);
  const bounds = [...new Set(values.flatMap(([, h]) => buckets(h).flatMap(b => [b.low, b.high])))].filter(Number.isFinite).sort((a, b) => a - b);
  while (bounds.length > maxRows) for (let i = bounds.length - 2; i > 0; i -= 2) bounds.splice(i, 1);
  const row = new Map(bounds.map((b, i) => [b, i]));
  const place = v => row.get(v) ?? Math.max(0, bounds.findIndex(b => b >= v));
  const rows = Math.max(1, bounds.length - 1), n = Math.round((to - from) / step) + 1;
  const cells = values.map(([t, h]) => ({i: Math.round((t - from) / step), t, all: buckets(h)}));
  // Colour is by density, as wide buckets would otherwise outshine narrow ones.
  const most = Math.max(...cells.flatMap(c => c.all.map(b => b.count)), 1e-300);
  let dragged = null; // pixels, from and to
  const draw = () => {
    const ratio = devicePixelRatio || 1, width = Math.max(200, host.clientWidth), height = 280;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    const ctx = canvas.getContext("2d"), w = (width - left) / n, h = (height - bottom) / rows;
    ctx.scale(ratio, ratio);
    ctx.fillStyle = ink("accent");
    for (const c of cells) for (const b of c.all) {
      const low = place(b.low), high = Math.max(low + 1, place(b.high));
      ctx.globalAlpha = b.count <= 0 ? 0 : 0.12 + 0.88 * Math.sqrt(b.count / most);
      // Whole pixels: cells neither overlap nor leave seams.
      const [x, right, y, below] = [left + c.i * w, left + (c.i + 1) * w, height - bottom - high * h, height - bottom - low * h].map(Math.round);
      ctx.fillRect(x, y, Math.max(1, right - x), Math.max(1, below - y));
    }
    if (dragged) {
      ctx.globalAlpha = 0.25;
      ctx.fillStyle = ink("ink");
      ctx.fillRect(Math.min(...dragged), 0, Math.abs(dragged[1] - dragged[0]), height - bottom);
    }
    ctx.globalAlpha = 1;
    ctx.fillStyle = ink("quiet");
    ctx.font = "11px system-ui, sans-serif";
    for (let i = 0; i < bounds.length; i += Math.ceil(bounds.length / 8)) ctx.fillText(short(bounds[i]), 2, height - bottom - i * h);
    const ticks = Math.max(1, Math.floor((width - left) / 180));
    for (let k = 0; k <= ticks; k++) {
      ctx.textAlign = k === 0 ? "left" : k === ticks ? "right" : "center";
      ctx.fillText(dateTime((from + k / ticks * (to - from)) * 1000), left + k / ticks * (width - left), height - 4);
    }
  };
  const timeAt = x => { const w = canvas.getBoundingClientRect().width; return (from + Math.min(1, Math.max(0, (x - left) / (w - left))) * (to - from)) * 1000; };
  canvas.addEventListener("pointerdown", e => { dragged = [e.offsetX, e.offsetX]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => {
    const [a, b] = dragged ? dragged.toSorted((x, y) => x - y) : [0, 0];
    dragged = null;
    if (b - a < 4) return draw();
    zoom(timeAt(a), timeAt(b));
  });
  canvas.addEventListener("pointermove", e => {
    const box = canvas.getBoundingClientRect();
    const i = Math.floor((e.clientX - box.left - left) / ((box.width - left) / n)), r = Math.floor((box.height - bottom - (e.clientY - box.top)) / ((box.height - bottom) / rows));
    const c = cells.find(c => c.i === i), b = c && c.all.find(b => place(b.low) <= r && r < Math.max(place(b.low) + 1, place(b.high)));
    if (dragged) { dragged[1] = e.offsetX; draw(); }
    readout(c ? `${dateTime(c.t * 1000)}: ${b ? `${short(b.count)} from ${short(b.low)} to ${short(b.high)}` : "none there"}` : "");
  });
  canvas.addEventListener("pointerleave", () => readout(""));
  const resized = new ResizeObserver(draw);
  resized.observe(host);
  draw();
  return {destroy: () => resized.disconnect()};
}
