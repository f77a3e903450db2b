// Elements, numbers, times and requests. Text that came from elsewhere is only
// ever set as text.

export const $ = id => document.getElementById(id);

/** A new element. Properties are attributes, but for text and on…, which are what they say. */
export function el(name, props = {}, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(props)) {
    if (v === undefined || v === null || v === false) continue;
    if (k === "text") e.textContent = v;
    else if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.filter(c => c !== null && c !== undefined));
  return e;
}

const trim = v => String(Number(v.toPrecision(3)));

/** A number in at most seven characters. */
export function short(v) {
  if (!Number.isFinite(v)) return String(v);
  const a = Math.abs(v);
  for (const [unit, size] of [["P", 1e15], ["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (a >= size * 0.9995 && a < 1e18) return trim(v / size) + unit;
  }
  return a !== 0 && a < 0.001 || a >= 1e18 ? v.toExponential(1) : trim(v);
}

/** Bytes in binary units. */
export function bytes(v) {
  if (!Number.isFinite(v)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; Math.abs(v) >= 1024 && i < units.length - 1; i++) v /= 1024;
  return (i === 0 ? Math.round(v) : trim(v)) + " " + units[i];
}

export const seconds = v => v < 1 ? trim(v * 1000) + " ms" : trim(v) + " s";

/** A value as the API spells it. */
export const number = text => text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text);

/** A series' labels as PromQL spells them, also where names are no identifiers. */
export function spell(metric) {
  const {__name__: name = "", ...rest} = metric;
  const plain = /^[a-zA-Z_][a-zA-Z0-9_]*$/, plainMetric = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
  const labels = Object.keys(rest).sort().map(k => `${plain.test(k) ? k : quote(k)}=${quote(rest[k])}`);
  if (name && !plainMetric.test(name)) return `{${[quote(name), ...labels].join(", ")}}`;
  return labels.length || !name ? `${name}{${labels.join(", ")}}` : name;
}

/** A PromQL string. What would not be seen, or would turn the text around, is escaped. */
export const quote = s => JSON.stringify(s).replace(/[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, c => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));

// Directory of the page: all views are files of one directory, whatever path a proxy serves it under.
export const base = new URL(".", location.href).href;

/** What every request has besides: the tenant, where there are any. */
export const tenant = {header: "", name: ""};

export function ask(url, init = {}) {
  const headers = new Headers(init.headers);
  if (tenant.header && tenant.name) headers.set(tenant.header, tenant.name);
  return fetch(url, {...init, headers});
}

/** An answer's own words for why there is none; gone says that nobody answered. */
export class APIError extends Error {
  constructor(message, gone = false) {
    super(message);
    this.gone = gone;
  }
}

/** Asks the API. The result is {data, warnings, infos, completeFrom (ms, or null), source (memory, upstream, both; empty if there is no store)}. */
export async function api(path, params = {}, {at = "", signal} = {}) {
  let res;
  try {
    const body = new URLSearchParams();
    for (const [k, v] of Object.entries(params)) if (v !== undefined && v !== null) body.append(k, v);
    res = await ask(`${base}${at}api/v1/${path}?${body}`, {signal});
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new APIError("the daemon does not answer", true);
  }
  let body;
  try {
    body = await res.json();
  } catch {
    throw new APIError(`${res.status} ${res.statusText}`);
  }
  if (body.status !== "success") throw new APIError(body.error || `${res.status} ${res.statusText}`);
  const from = res.headers.get("X-Mcached-Complete-From");
  return {...body, completeFrom: from ? Date.parse(from) : null, source: res.headers.get("X-Mcached-Source") || ""};
}

// Times. Where a person reads one, it is local or UTC, as chosen.

export const zone = {utc: false};

export function dateTime(ms) {
  const d = zone.utc ? new Date(ms) : new Date(ms - new Date(ms).getTimezoneOffset() * 60000);
  return d.toISOString().slice(0, 19).replace("T", " ") + (zone.utc ? " UTC" : "");
}

const units = {ms: 1, s: 1e3, m: 60e3, h: 3600e3, d: 86400e3, w: 7 * 86400e3, y: 365 * 86400e3};

/** Milliseconds of a duration as Prometheus spells it, or null. */
export function duration(text) {
  const given = text.trim();
  if (!/^(\d+(ms|[smhdwy]))+$/.test(given)) return null;
  let ms = 0;
  for (const [, n, unit] of given.matchAll(/(\d+)(ms|[smhdwy])/g)) ms += n * units[unit];
  return ms > 0 ? ms : null;
}

export function spellDuration(ms) {
  let text = "";
  for (const unit of ["d", "h", "m", "s", "ms"]) {
    const n = Math.floor(ms / units[unit]);
    if (n > 0) text += n + unit;
    ms -= n * units[unit];
  }
  return text || "0s";
}

/** How long ago, in one unit. */
export function ago(ms) {
  for (const [name, size] of [["day", units.d], ["hour", units.h], ["minute", units.m], ["second", units.s]]) {
    const n = Math.floor(ms / size);
    if (n > 0) return `${n} ${name}${n > 1 ? "s" : ""} ago`;
  }
  return "now";
}

/** Gives text to the clipboard, also of pages that browsers trust with little. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const box = el("textarea", {"aria-hidden": "true"});
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
}

/** A small button that copies what make gives, and says so. */
export const copyButton = (text, make) => el("button", {type: "button", class: "small", text, onclick: async e => {
  await copy(make());
  const b = e.target;
  b.textContent = "Copied";
  setTimeout(() => { b.textContent = text; }, 1500);
}});

// Colours: eight that are told apart, and as many more as are wanted.
export function colour(i) {
  if (i < 8) return getComputedStyle(document.documentElement).getPropertyValue("--c" + i).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return `hsl(${Math.round(i * 137.5) % 360} 55% ${dark ? 68 : 42}%)`;
}

export const ink = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
