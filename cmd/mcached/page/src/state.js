// What a URL says and what the page shows are one thing: this. Names are those
// of Prometheus' page, so that its links (Grafana's, Alertmanager's) hold here.
import {duration, spellDuration, tenant, zone} from "./util.js";

export const defaultRangeMs = 3600e3;
export const maxPanels = 10;

/** The state of the explore view. endMs null means now, stepMs null the page's choice. */
export function fresh() {
  return {panels: [{expr: "", tab: "graph"}], rangeMs: defaultRangeMs, endMs: null, stepMs: null, stacked: false, log: false, exemplars: false, refreshMs: 0};
}

const tabs = ["graph", "table", "explain"];

function readTab(text) {
  return text === "1" ? "table" : tabs.includes(text) ? text : "graph";
}

/** Reads an end: "2026-11-28 09:00:00" is UTC, as in Prometheus' links. */
export function readTime(text) {
  const ms = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : Date.parse(text.trim().replace(" ", "T") + (/[zZ]|[+-]\d\d:?\d\d$/.test(text) ? "" : "Z"));
  return Number.isFinite(ms) ? ms : null;
}

export function readURL(search) {
  const given = new URLSearchParams(search), s = fresh();
  const panels = [];
  for (let i = 0; i < maxPanels; i++) {
    const expr = given.get(`g${i}.expr`);
    if (expr !== null) panels.push({expr, tab: readTab(given.get(`g${i}.tab`))});
  }
  if (!panels.length && given.get("expr")) panels.push({expr: given.get("expr"), tab: "graph"}); // links of earlier pages
  if (panels.length) s.panels = panels;
  s.rangeMs = duration(given.get("g0.range_input") || "") || (Number(given.get("window")) || 0) * 1000 || s.rangeMs;
  if (given.get("g0.end_input") || given.get("g0.moment_input")) s.endMs = readTime(given.get("g0.end_input") || given.get("g0.moment_input"));
  const step = given.get("g0.step_input") || "";
  s.stepMs = duration(step) || (Number(step) > 0 ? Number(step) * 1000 : null);
  s.stacked = given.get("g0.stacked") === "1";
  s.exemplars = given.get("g0.show_exemplars") === "1";
  s.log = given.get("log") === "1";
  s.refreshMs = duration(given.get("refresh") || "") || 0;
  zone.utc = given.get("tz") === "utc";
  if (given.get("tenant")) tenant.name = given.get("tenant");
  return s;
}

export function writeURL(s) {
  const p = new URLSearchParams();
  s.panels.forEach(({expr, tab}, i) => {
    p.set(`g${i}.expr`, expr);
    p.set(`g${i}.tab`, tab);
  });
  p.set("g0.range_input", spellDuration(s.rangeMs));
  if (s.endMs !== null) p.set("g0.end_input", new Date(s.endMs).toISOString().slice(0, 19).replace("T", " "));
  if (s.stepMs !== null) p.set("g0.step_input", spellDuration(s.stepMs));
  if (s.stacked) p.set("g0.stacked", "1");
  if (s.exemplars) p.set("g0.show_exemplars", "1");
  if (s.log) p.set("log", "1");
  if (s.refreshMs) p.set("refresh", spellDuration(s.refreshMs));
  if (zone.utc) p.set("tz", "utc");
  if (tenant.name) p.set("tenant", tenant.name);
  return "?" + p;
}

// Points of a graph: as many as a wide plot has room for.
const points = 400;

/** The times asked for, in seconds, all multiples of the step, so that a graph that moves on is made of the same points. */
export function grid(s) {
  const stepMs = s.stepMs || Math.max(1000, Math.ceil(s.rangeMs / points / 1000) * 1000);
  const to = Math.floor((s.endMs ?? Date.now()) / stepMs) * stepMs;
  const from = to - Math.floor(s.rangeMs / stepMs) * stepMs;
  return {from: from / 1000, to: to / 1000, step: stepMs / 1000};
}
