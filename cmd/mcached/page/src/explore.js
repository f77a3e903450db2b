// The explore view: time, options, panels, history; all of it is in the URL.
import {Panel} from "./panel.js";
import {$, copy, dateTime, duration, el, spellDuration, zone} from "./util.js";
import {fresh, maxPanels, readTime, readURL, writeURL} from "./state.js";

const historyKey = "mcached.history", maxHistory = 50;
let state = fresh(), panels = [], timer = 0;

const app = {
  run, zoom, change: remember,
  remove(panel) {
    if (panels.length === 1) { panel.editor.text = ""; return run(); }
    panels = panels.filter(p => p !== panel);
    panel.remove();
    run();
  },
};

function add(p) {
  const panel = new Panel(app, p);
  panels.push(panel);
  $("panels").append(panel.root);
  return panel;
}

/** What is shown, as a state. */
function current() {
  return {...state, panels: panels.map(p => p.state)};
}

/** Puts the state into the URL: as a place of its own to come back to, if it is another one. */
function remember() {
  state = current();
  const url = writeURL(state);
  if (url !== location.search) history.pushState(null, "", url);
}

async function run() {
  remember();
  keep(panels.map(p => p.expr));
  await ask();
}

async function ask() {
  showOptions();
  clearTimeout(timer);
  await Promise.all(panels.map(p => p.run(state)));
  if (state.refreshMs) timer = setTimeout(refresh, state.refreshMs);
}

/** Asks again, unless nobody looks. */
function refresh() {
  clearTimeout(timer);
  if (document.hidden || $("explore").hidden) { timer = setTimeout(refresh, state.refreshMs || 1000); return; }
  if (state.refreshMs) ask();
}

function zoom(fromMs, toMs) {
  state.rangeMs = Math.max(1000, Math.round((toMs - fromMs) / 1000) * 1000);
  state.endMs = Math.round(toMs / 1000) * 1000;
  state.stepMs = null;
  run();
}

function move(part) {
  const end = (state.endMs ?? Date.now()) + part * state.rangeMs;
  state.endMs = end >= Date.now() ? null : Math.round(end / 1000) * 1000;
  run();
}

function showOptions() {
  $("range").value = spellDuration(state.rangeMs);
  $("end").value = state.endMs === null ? "" : dateTime(state.endMs).replace(" UTC", "");
  $("step").value = state.stepMs === null ? "" : spellDuration(state.stepMs);
  $("refresh").value = String(state.refreshMs);
  for (const [id, on] of [["stacked", state.stacked], ["log", state.log], ["exemplars", state.exemplars]]) $(id).setAttribute("aria-pressed", String(on));
  $("utc").setAttribute("aria-pressed", String(zone.utc));
}

/** A time as a person writes it, in the zone that is shown. */
function writtenTime(text) {
  if (/[zZ]$|[+-]\d\d:?\d\d$/.test(text) || zone.utc || /^\d+(\.\d+)?$/.test(text)) return readTime(text);
  const ms = Date.parse(text.replace(" ", "T"));
  return Number.isFinite(ms) ? ms : null;
}

/** Reads an input, or says on it what is wrong. */
function read(id, parse, set) {
  const text = $(id).value.trim(), v = text ? parse(text) : null;
  $(id).setCustomValidity(text && v === null ? "Not a valid time or duration." : "");
  if (!$(id).reportValidity()) return;
  set(v);
  run();
}

// History of what was asked, in this browser only.

function past() {
  try {
    return JSON.parse(localStorage.getItem(historyKey)) || [];
  } catch {
    return [];
  }
}

function keep(exprs) {
  const list = [...new Set([...exprs.filter(Boolean), ...past()])].slice(0, maxHistory);
  try {
    localStorage.setItem(historyKey, JSON.stringify(list));
  } catch { /* a browser that keeps nothing */ }
  $("history").replaceChildren(el("option", {value: "", text: "History"}), ...list.map(text => el("option", {value: text, text: text.length > 80 ? text.slice(0, 79) + "…" : text})));
}

/** Shows what the URL says. */
export function openURL() {
  state = readURL(location.search);
  state.panels.forEach((p, i) => {
    if (!panels[i]) return add(p);
    panels[i].editor.text = p.expr;
    panels[i].tab = p.tab;
    panels[i].mark();
  });
  for (const p of panels.splice(state.panels.length)) p.remove();
  keep([]);
  return ask();
}

/** Opens an expression, as other views do. */
export function explore(expr) {
  panels[0].editor.text = expr;
  return run();
}

export function initExplore() {
  $("add").addEventListener("click", () => { if (panels.length < maxPanels) add({expr: "", tab: "graph"}).editor.focus(); });
  $("range").addEventListener("change", () => read("range", duration, v => { state.rangeMs = v ?? state.rangeMs; }));
  $("end").addEventListener("change", () => read("end", writtenTime, v => { state.endMs = v; }));
  $("step").addEventListener("change", () => read("step", t => duration(t) ?? (Number(t) > 0 ? Number(t) * 1000 : null), v => { state.stepMs = v; }));
  $("presets").addEventListener("change", e => { if (e.target.value) { state.rangeMs = duration(e.target.value); state.endMs = null; e.target.value = ""; run(); } });
  $("earlier").addEventListener("click", () => move(-0.5));
  $("later").addEventListener("click", () => move(0.5));
  $("wider").addEventListener("click", () => { state.rangeMs *= 2; if (state.endMs !== null) state.endMs = Math.min(state.endMs + state.rangeMs / 4, Date.now()); run(); });
  $("refresh").addEventListener("change", e => { state.refreshMs = Number(e.target.value); run(); });
  for (const id of ["stacked", "log", "exemplars"]) $(id).addEventListener("click", () => { state[id] = !state[id]; run(); });
  $("utc").addEventListener("click", () => { zone.utc = !zone.utc; run(); });
  $("history").addEventListener("change", e => { if (e.target.value) { panels[panels.length - 1].editor.text = e.target.value; e.target.value = ""; run(); } });
  $("share").addEventListener("click", async () => {
    // A link holds the time that is shown, not a later now.
    remember();
    await copy(new URL(writeURL({...state, endMs: state.endMs ?? Math.floor(Date.now() / 1000) * 1000}), location.href).href);
    $("share").textContent = "Copied";
    setTimeout(() => { $("share").textContent = "Copy link"; }, 1500);
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && state.refreshMs) refresh(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => panels.forEach(p => p.draw()));
}
