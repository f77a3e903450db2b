// Numbers and line plots. Nothing here knows what is plotted, and text that came
// from elsewhere is only ever set as text.
"use strict";

/** A new element with text and children. */
function el(name, props = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "title"].includes(name);
  const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [k, v] of Object.entries(props)) {
    if (k === "text") e.textContent = v;
    else e.setAttribute(k, v);
  }
  e.append(...children);
  return e;
}

/** A number in at most seven characters. */
function short(v) {
  if (!Number.isFinite(v)) return String(v);
  const a = Math.abs(v);
  for (const [unit, size] of [["P", 1e15], ["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (a >= size * 0.9995 && a < 1e18) return trim(v / size) + unit;
  }
  return a !== 0 && a < 0.001 || a >= 1e18 ? v.toExponential(1) : trim(v);
}

function trim(v) { return String(Number(v.toPrecision(3))); }

/** Bytes in binary units. */
function bytes(v) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; Math.abs(v) >= 1024 && i < units.length - 1; i++) v /= 1024;
  return (i === 0 ? Math.round(v) : trim(v)) + " " + units[i];
}

const colour = i => `var(--c${i % 8})`;

/**
 * Draws lines into a figure.
 * series: [{name, values: [[seconds, "text"], …]}], from and to in seconds, step in seconds.
 */
function linePlot(series, from, to, step, show = short, height = 90) {
  const width = 600, left = 2, right = 598, top = 6, bottom = height - 14;
  let low = Infinity, high = -Infinity;
  const lines = series.map(s => s.values.map(([t, v]) => [t, Number(v === "+Inf" ? Infinity : v === "-Inf" ? -Infinity : v)]));
  for (const line of lines) for (const [, v] of line) if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
  const svg = el("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", preserveAspectRatio: "none"});
  svg.style.height = height + "px";
  if (low > high) {
    return {svg: el("p", {class: "quiet", text: "nothing in this window"}), low, high};
  }
  if (low > 0 && low < high * 0.8) low = 0;
  if (low === high) { high += Math.abs(high) || 1; low = Math.min(0, low); }
  const span = high - low;
  const x = t => left + (t - from) / (to - from) * (right - left);
  const y = v => bottom - (v - low) / span * (bottom - top);
  for (const v of [low, high]) svg.append(el("line", {class: "grid", x1: left, x2: right, y1: y(v), y2: y(v)}));
  lines.forEach((line, i) => {
    let d = "", last = -Infinity;
    for (const [t, v] of line) {
      if (!Number.isFinite(v)) { last = -Infinity; continue; }
      d += (t - last > step * 1.5 ? "M" : "L") + x(t).toFixed(1) + " " + y(v).toFixed(1);
      if (t - last > step * 1.5) d += "h0.01"; // so that a single point is seen
      last = t;
    }
    const path = el("path", {d});
    path.style.stroke = colour(i);
    path.append(el("title", {text: series[i].name}));
    svg.append(path);
  });
  const cursor = el("line", {class: "cursor", y1: top, y2: bottom, x1: -9, x2: -9});
  svg.append(cursor);
  return {
    svg, low, high, show,
    /** The values at a share of the width, and the cursor there; null takes it away. */
    at(share) {
      if (share === null) { cursor.setAttribute("x1", -9); cursor.setAttribute("x2", -9); return null; }
      const t = from + share * (to - from);
      cursor.setAttribute("x1", x(t)); cursor.setAttribute("x2", x(t));
      return {t, values: lines.map(line => {
        let best = null;
        for (const p of line) if (Math.abs(p[0] - t) <= step && (best === null || Math.abs(p[0] - t) < Math.abs(best[0] - t))) best = p;
        return best === null ? null : best[1];
      })};
    },
  };
}

const clock = t => new Date(t * 1000).toLocaleTimeString();

/** A figure: caption, plot, and a key when there are several lines. */
function figure(title, series, from, to, step, show = short, height = 90) {
  const p = linePlot(series, from, to, step, show, height);
  const now = el("b");
  const latest = () => {
    const lasts = series.map(s => s.values.length ? Number(s.values[s.values.length - 1][1]) : NaN).filter(Number.isFinite);
    return series.length === 1 && lasts.length ? show(lasts[0]) : "";
  };
  now.textContent = latest();
  const f = el("figure", {}, el("figcaption", {}, el("h3", {text: title}), now), p.svg);
  if (!p.at) return f;
  f.append(el("div", {class: "quiet axis"}, `${show(p.low)} – ${show(p.high)}, ${clock(from)} to ${clock(to)}`));
  const keys = [];
  if (series.length > 1) {
    const list = el("ul", {class: "key"});
    series.forEach((s, i) => {
      const swatch = el("span", {class: "swatch"});
      swatch.style.background = colour(i);
      const value = el("b");
      keys.push(value);
      list.append(el("li", {}, swatch, s.name + " ", value));
    });
    f.append(list);
  }
  const point = e => {
    const box = p.svg.getBoundingClientRect();
    const got = p.at(Math.min(1, Math.max(0, (e.clientX - box.left) / box.width)));
    const text = v => v === null ? "–" : show(v);
    if (series.length === 1) now.textContent = `${text(got.values[0])} at ${clock(got.t)}`;
    else { now.textContent = clock(got.t); got.values.forEach((v, i) => { keys[i].textContent = text(v); }); }
  };
  p.svg.addEventListener("pointermove", point);
  p.svg.addEventListener("pointerleave", () => { p.at(null); now.textContent = latest(); keys.forEach(k => { k.textContent = ""; }); });
  return f;
}
