// The explore part: PromQL with completion, as a plot and a table, under a URL
// that can be passed on.
"use strict";

// What is shown of an answer, whatever is in it.
const maxLines = 8, maxRows = 200, maxHints = 50;

const functions = ("abs absent absent_over_time avg avg_over_time bottomk ceil changes clamp clamp_max clamp_min count count_over_time count_values " +
  "delta deriv exp floor group histogram_quantile idelta increase irate label_join label_replace last_over_time ln log10 log2 max max_over_time min " +
  "min_over_time predict_linear present_over_time quantile quantile_over_time rate resets round scalar sgn sort sort_desc sqrt stddev stddev_over_time " +
  "stdvar sum sum_over_time time timestamp topk vector by without on ignoring group_left group_right offset bool").split(" ");

/** A series' labels as PromQL spells them. */
function spell(metric) {
  const {__name__: name = "", ...rest} = metric;
  const labels = Object.keys(rest).sort().map(k => `${k}=${JSON.stringify(rest[k])}`);
  return labels.length || !name ? `${name}{${labels.join(", ")}}` : name;
}

let asked = 0; // answers to older questions come too late

async function run() {
  const query = $("expr").value.trim(), mine = ++asked;
  const window_ = Number($("window").value);
  history.replaceState(null, "", "?" + new URLSearchParams({expr: query, window: window_}) + "#explore");
  closeHints();
  if (!query) return;
  say("…");
  const to = Math.floor(Date.now() / 1000), step = Math.max(1, Math.ceil(window_ / 300));
  const started = performance.now();
  try {
    const now = await api("query", {query, limit: maxRows + 1});
    let range = null;
    if (now.data.resultType !== "matrix" && now.data.resultType !== "string") {
      range = await api("query_range", {query, start: to - window_, end: to, step, limit: maxRows + 1});
    }
    if (mine !== asked) return;
    show(now, range, to - window_, to, step, performance.now() - started);
  } catch (e) {
    if (mine !== asked) return;
    say(e.message, true);
    $("graph").replaceChildren();
    $("values").hidden = true;
  }
}

function say(text, bad = false) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", bad);
}

function show(now, range, from, to, step, ms) {
  const {resultType, result} = now.data;
  const rows = resultType === "scalar" || resultType === "string" ? [["", result[1]]]
    : resultType === "matrix" ? result.map(r => [spell(r.metric), r.values ? `${r.values.length} samples, last ${r.values[r.values.length - 1][1]}` : "histograms"])
      : result.map(r => [spell(r.metric), r.value ? r.value[1] : `histogram, ${r.histogram[1].count} observations`]);
  $("values").tBodies[0].replaceChildren(...rows.slice(0, maxRows).map(([name, v]) => el("tr", {}, el("td", {}, el("code", {text: name})), el("td", {class: "n", text: v}))));
  $("values").hidden = rows.length === 0;
  const lines = range ? range.data.result.filter(r => r.values).map(r => ({name: spell(r.metric), values: r.values})) : [];
  $("graph").replaceChildren(...lines.length ? [figure(lines.length > maxLines ? `${maxLines} of ${lines.length} lines` : "", lines.slice(0, maxLines), from, to, step, short, 180)] : []);
  const notes = [...new Set([now, range].flatMap(a => a ? [...a.warnings || [], ...a.infos || []] : []))];
  const count = rows.length > maxRows ? `more than ${maxRows} series, the first are shown` : rows.length === 1 ? "1 value" : `${rows.length} values`;
  say([`${count}, ${Math.round(ms)} ms`, ...notes].join("\n"));
}

// Completion. The word before the cursor is completed from functions, metric
// names and, inside braces, label names; after a label's = from its values.

let hints = [], chosen = -1, completing = 0;

function context() {
  const box = $("expr"), text = box.value.slice(0, box.selectionStart);
  const value = /([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~?|!=|!~)\s*"([^"]*)$/.exec(text);
  if (value) return {kind: "value", label: value[1], word: value[2]};
  const word = /[a-zA-Z_:][a-zA-Z0-9_:]*$/.exec(text);
  if (!word) return null;
  const before = text.slice(0, -word[0].length);
  const inBraces = before.lastIndexOf("{") > before.lastIndexOf("}");
  const inBy = /\b(by|without|on|ignoring)\s*\([^)]*$/.test(before);
  if (/\[[^\]]*$/.test(before) || /\d$/.test(before)) return null;
  return {kind: inBraces || inBy ? "label" : "metric", word: word[0]};
}

const quoteRegexp = s => s.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");

async function complete() {
  const c = context(), mine = ++completing;
  if (!c || (c.kind !== "value" && c.word.length < 1)) return closeHints();
  let found = [];
  try {
    if (c.kind === "metric") {
      const names = (await api("label/__name__/values", {"match[]": `{__name__=~".*${quoteRegexp(c.word).replace(/\\/g, "\\\\")}.*"}`, limit: maxHints})).data;
      found = [...functions.filter(f => f.startsWith(c.word)), ...names];
    } else if (c.kind === "label") {
      found = (await api("labels", {limit: 1000})).data.filter(n => n.includes(c.word));
    } else {
      found = (await api(`label/${encodeURIComponent(c.label)}/values`, {limit: 1000})).data.filter(v => v.includes(c.word));
    }
  } catch {
    return closeHints(); // completion is a help, not an answer
  }
  if (mine !== completing) return;
  found = [...new Set(found)].filter(h => h !== c.word);
  found.sort((a, b) => b.startsWith(c.word) - a.startsWith(c.word));
  hints = found.slice(0, maxHints).map(text => ({text, word: c.word}));
  chosen = -1;
  $("hints").replaceChildren(...hints.map((h, i) => {
    const li = el("li", {role: "option", id: "hint" + i, text: h.text, "aria-selected": "false"});
    li.addEventListener("pointerdown", e => { e.preventDefault(); take(i); });
    return li;
  }));
  $("hints").hidden = hints.length === 0;
  $("expr").setAttribute("aria-expanded", String(hints.length > 0));
}

function closeHints() {
  completing++;
  hints = [];
  chosen = -1;
  $("hints").hidden = true;
  $("expr").setAttribute("aria-expanded", "false");
  $("expr").removeAttribute("aria-activedescendant");
}

function choose(i) {
  chosen = (i + hints.length) % hints.length;
  [...$("hints").children].forEach((li, j) => {
    li.setAttribute("aria-selected", String(j === chosen));
    if (j === chosen) li.scrollIntoView({block: "nearest"});
  });
  $("expr").setAttribute("aria-activedescendant", "hint" + chosen);
}

function take(i) {
  const {text, word} = hints[i], box = $("expr"), at = box.selectionStart;
  box.setRangeText(text, at - word.length, at, "end");
  closeHints();
  box.focus();
}

$("expr").addEventListener("input", complete);
$("expr").addEventListener("blur", () => setTimeout(closeHints, 150));
$("expr").addEventListener("keydown", e => {
  const open = hints.length > 0;
  if (open && e.key === "ArrowDown") { e.preventDefault(); choose(chosen + 1); }
  else if (open && e.key === "ArrowUp") { e.preventDefault(); choose(chosen < 0 ? -1 : chosen - 1); }
  else if (open && e.key === "Tab") { e.preventDefault(); take(Math.max(0, chosen)); }
  else if (open && e.key === "Enter" && chosen >= 0) { e.preventDefault(); take(chosen); }
  else if (e.key === "Escape") closeHints();
  else if (e.key === "Enter" && !e.shiftKey) { e.preventDefault(); run(); }
});
$("ask").addEventListener("submit", e => { e.preventDefault(); run(); });
$("window").addEventListener("change", () => { if ($("expr").value.trim()) run(); });

const given = new URLSearchParams(location.search);
if (given.has("expr")) {
  $("expr").value = given.get("expr");
  if ([...$("window").options].some(o => o.value === given.get("window"))) $("window").value = given.get("window");
  run();
}
