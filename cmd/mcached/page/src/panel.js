// One expression of the explore view: editor, graph, table, explanation.
import {editor} from "./editor.js";
import {heatMap, bucketTable} from "./heat.js";
import {onlySelector, tree} from "./explain.js";
import {browse} from "./browse.js";
import {columns, maxLines, plot, summary} from "./plot.js";
import {ago, api, colour, copyButton, dateTime, el, number, short, spell} from "./util.js";
import {grid} from "./state.js";

// What is listed and drawn of an answer, whatever is in it, and how much of a name.
const maxRows = 500, maxSeries = 1000, maxName = 400, maxTitle = 4000;

const nameOf = metric => {
  const s = spell(metric);
  return s.length > maxName ? s.slice(0, maxName) + "…" : s;
};

// Who computed an answer, where there is a store behind.
const sources = {memory: "from memory", upstream: "from the store", both: "from memory and the store"};

// After how long a question can be cancelled.
const cancelAfterMs = 500;

/** Why samples may be missing, in the words of the answer's warning. */
function reason(warnings) {
  const said = (warnings || []).map(w => /may be missing: (.*)$/.exec(w)).find(Boolean);
  return said ? ": " + said[1].replace(/\.$/, "") : "";
}

/** The head of a column that sorts: sort is {by, down}, which draw goes by. */
function sortable(text, cls, by, sort, draw) {
  return el("th", {class: cls, "aria-sort": sort.by === by && (sort.down ? "descending" : "ascending")}, el("button", {type: "button", class: "sort", text, onclick: e => {
    const down = sort.by === by ? !sort.down : by !== "name";
    Object.assign(sort, {by, down});
    for (const th of e.target.closest("tr").children) th.removeAttribute("aria-sort");
    e.target.parentElement.setAttribute("aria-sort", down ? "descending" : "ascending");
    draw();
  }}));
}

let made = 0;

/**
 * A panel. app has the state, and is told of what a person does: run(), zoom(fromMs, toMs),
 * remove(panel), add(expr), change().
 */
export class Panel {
  constructor(app, {expr, tab}) {
    this.app = app;
    this.id = made++;
    this.tab = tab;
    this.drawn = [];
    this.hidden = new Set();
    this.sort = {by: "", down: true};
    this.host = el("div", {class: "editor", id: "expr" + this.id});
    this.said = el("p", {class: "said", role: "status"});
    this.readout = el("p", {class: "out-of-sight", "aria-live": "polite"});
    this.body = el("div", {class: "answer", role: "tabpanel", id: "answer" + this.id});
    this.tabs = el("div", {class: "tabs", role: "tablist", "aria-label": "What is shown of the answer", onkeydown: e => this.moveTab(e)}, ...[["graph", "Graph"], ["table", "Table"], ["explain", "Explain"]].map(([name, text]) =>
      el("button", {type: "button", role: "tab", id: `${name}${this.id}`, "data-tab": name, "aria-controls": "answer" + this.id, text, onclick: () => this.choose(name)})));
    this.runs = el("button", {type: "button", class: "run", text: "Run", onclick: () => this.root.classList.contains("busy") && this.runs.textContent === "Cancel" ? this.cancel() : app.run()});
    this.root = el("section", {class: "panel", "aria-label": "Expression"},
      el("div", {class: "ask"}, this.host, el("div", {class: "buttons"},
        this.runs,
        el("button", {type: "button", text: "Metrics", title: "Browse the metrics", onclick: () => browse(n => this.editor.insert(n))}),
        el("button", {type: "button", text: "Format", onclick: () => this.format()}),
        el("button", {type: "button", class: "remove", text: "✕", title: "Remove this expression", "aria-label": "Remove this expression", onclick: () => app.remove(this)}))),
      this.said, this.tabs, this.body, this.readout);
    this.mark();
    this.editor = editor(this.host, expr, {label: "PromQL expression", run: () => app.run(), changed: () => {}});
  }

  get expr() { return this.editor.text.trim(); }
  get state() { return {expr: this.expr, tab: this.tab}; }

  mark() {
    for (const b of this.tabs.children) {
      b.setAttribute("aria-selected", String(b.dataset.tab === this.tab));
      b.tabIndex = b.dataset.tab === this.tab ? 0 : -1;
    }
    this.body.setAttribute("aria-labelledby", this.tab + this.id);
  }

  choose(tab) {
    this.tab = tab;
    this.app.change();
    this.mark();
    this.draw();
  }

  /** Arrow keys go from tab to tab. */
  moveTab(e) {
    const all = [...this.tabs.children], by = {ArrowLeft: -1, ArrowRight: 1}[e.key];
    if (!by) return;
    e.preventDefault();
    const to = all[(all.findIndex(b => b.dataset.tab === this.tab) + by + all.length) % all.length];
    this.choose(to.dataset.tab);
    to.focus();
  }

  /** What is under way can be cancelled once it has taken a while. */
  busy(on) {
    clearTimeout(this.slow);
    this.root.classList.toggle("busy", on);
    if (on) this.slow = setTimeout(() => { this.runs.textContent = "Cancel"; }, cancelAfterMs);
    else this.runs.textContent = "Run";
  }

  cancel() {
    this.abort?.abort();
    this.busy(false);
    this.say("cancelled");
  }

  say(text, bad = false) {
    this.said.textContent = text;
    this.said.classList.toggle("bad", bad);
  }

  async format() {
    try {
      this.editor.text = (await api("format_query", {query: this.expr})).data;
      this.editor.focus();
    } catch (e) {
      this.say(e.message, true);
    }
  }

  /** Asks for the answer. Answers to older questions are not waited for. */
  async run(s) {
    this.abort?.abort();
    const {signal} = this.abort = new AbortController();
    this.grid = grid(s);
    const query = this.expr;
    if (!query) {
      this.answer = null;
      this.busy(false);
      this.say("");
      return this.draw();
    }
    this.busy(true);
    let noGraph = "";
    const started = performance.now(), limit = maxSeries + 1, parses = this.editor.parses;
    try {
      const {from, to, step} = this.grid;
      const time = (s.endMs ?? Date.now()) / 1000;
      const [now, range, exemplars] = await Promise.all([
        api("query", {query, time, limit}, {signal}),
        // Not every expression has a graph: a range of samples, a string.
        parses && api("query_range", {query, start: from, end: to, step, limit}, {signal}).catch(e => { if (e.name === "AbortError" || e.gone) throw e; noGraph = e.message; return null; }),
        parses && s.exemplars ? api("query_exemplars", {query, start: from, end: to}, {signal}).catch(() => null) : null,
      ]);
      this.answer = {now, range, noGraph, exemplars, time, options: {stacked: s.stacked, log: s.log}};
      this.root.classList.remove("gone");
      this.sayWhat(performance.now() - started, signal);
    } catch (e) {
      if (e.name === "AbortError") return;
      if (e.gone && this.answer) this.root.classList.add("gone");
      else this.answer = null;
      this.say(e.gone && this.answer ? `${e.message}; this is of ${dateTime(this.answer.time * 1000)}` : e.message, true);
      if (this.answer) return;
    } finally {
      if (!signal.aborted) this.busy(false);
    }
    this.hidden.clear();
    this.draw();
  }

  /** Says what came, how complete it is, and where there is nothing, why. */
  sayWhat(ms, signal) {
    const {now, range} = this.answer, list = Array.isArray(now.data.result) && !["scalar", "string"].includes(now.data.resultType);
    const count = Math.max(list ? now.data.result.length : 1, range ? range.data.result.length : 0);
    const notes = [...new Set([now, range].flatMap(a => a ? [...a.warnings || [], ...a.infos || []] : []))].filter(n => !(count > maxSeries && /truncated due to limit/.test(n)));
    const from = sources[(range || now).source];
    const say = what => this.say([[what, `${Math.round(ms)} ms`, from].filter(Boolean).join(", "), ...notes].join("\n"));
    this.total = count;
    if (count > maxSeries) {
      this.total = 0; // more, and how many is yet to be known
      say(`more than ${maxSeries.toLocaleString("en")} series, the first are shown`);
      if (list && now.data.result.length > maxSeries) this.countAll(signal, say);
    } else say(count === 0 ? "no series match" : count === 1 ? "1 series" : `${count} series`);
    if (list && !now.data.result.length) this.lastSeen(signal, notes);
  }

  /** Of an answer with more series than are asked for: how many there are. */
  async countAll(signal, say) {
    try {
      const {data} = await api("query", {query: `count(\n${this.expr}\n)`, time: this.answer.time}, {signal});
      if (!data.result.length || signal.aborted) return;
      this.total = Number(data.result[0].value[1]);
      say(`${this.total.toLocaleString("en")} series, the first ${maxSeries.toLocaleString("en")} are shown`);
      for (const e of this.body.querySelectorAll(".total")) e.textContent = this.total.toLocaleString("en");
    } catch { /* it is a help, not an answer */ }
  }

  /** How many series there are, as far as that is known of the listed ones. */
  totalOf(list) {
    return el("span", {class: list.length > maxSeries ? "total" : "", text: list.length <= maxSeries ? String(list.length) : this.total ? this.total.toLocaleString("en") : `more than ${maxSeries.toLocaleString("en")}`});
  }

  /** For an expression of one selector without a value now: when its series had their last. */
  async lastSeen(signal, notes) {
    try {
      const {data: root} = await api("parse_query", {query: this.expr}, {signal}), selector = onlySelector(root);
      if (!selector) return;
      const {data} = await api("query", {query: `max(max_over_time(timestamp(${selector})[1d:1m]))`, time: this.answer.time}, {signal});
      if (data.result.length && !signal.aborted) {
        const at = Number(data.result[0].value[1]) * 1000;
        this.say([`no value now; last seen ${ago(this.answer.time * 1000 - at)}, at ${dateTime(at)}`, ...notes].join("\n"));
      }
    } catch { /* it is a help, not an answer */ }
  }

  draw() {
    for (const d of this.drawn) d.destroy();
    this.drawn = [];
    this.body.replaceChildren();
    if (!this.answer) return;
    if (this.tab === "table") this.drawTable();
    else if (this.tab === "explain") this.drawTree();
    else this.drawGraph();
  }

  drawGraph() {
    const {range, noGraph, exemplars, options} = this.answer;
    if (!range) return this.body.append(el("p", {class: "said bad", text: `There is no graph of this; see the table. ${noGraph}`}));
    const all = range.data.result, lines = all.filter(r => r.values).map(r => ({name: nameOf(r.metric), metric: r.metric, values: r.values}));
    const heat = all.filter(r => r.histograms);
    if (heat.length) this.drawHeat(heat);
    if (!lines.length) {
      if (!heat.length) this.body.append(el("p", {class: "quiet", text: "no values in this window"}));
      return;
    }
    const host = el("div", {class: "plot"}), marks = exemplars ? this.exemplars(exemplars.data) : [];
    this.body.append(host);
    const live = {};
    const p = plot(host, lines, {
      ...options, grid: this.grid, completeFrom: range.completeFrom, exemplars: marks,
      zoom: (a, b) => this.app.zoom(a, b),
      cursor: i => live.read?.(i),
      said: text => { this.readout.textContent = text; },
    });
    this.drawn.push(p);
    if (range.completeFrom !== null && range.completeFrom / 1000 > this.grid.from) {
      this.body.append(el("p", {class: "quiet incomplete", text: `Shaded: before ${dateTime(range.completeFrom)} samples may be missing${reason(range.warnings)}.`}));
    }
    if (options.log && lines.some(l => l.values.some(([, v]) => number(v) <= 0))) this.body.append(el("p", {class: "quiet", text: "A logarithmic scale has no place for values of 0 and less: they are gaps here."}));
    this.legend(lines, p, live);
    if (marks.length) this.body.append(this.exemplarTable(marks));
  }

  drawHeat(heat) {
    const host = el("div", {class: "plot"}), readout = el("p", {class: "quiet readout"});
    let map = null;
    const show = i => {
      map?.destroy();
      host.replaceChildren();
      map = heatMap(host, heat[i].histograms, this.grid, {readout: text => { readout.textContent = text; }, zoom: (a, b) => this.app.zoom(a, b)});
    };
    const choice = el("select", {"aria-label": "Which histogram", onchange: e => show(Number(e.target.value))}, ...heat.slice(0, maxRows).map((r, i) => el("option", {value: i, text: nameOf(r.metric)})));
    this.body.append(heat.length > 1 ? choice : el("code", {text: nameOf(heat[0].metric)}), host, readout);
    show(0);
    this.drawn.push({destroy: () => map.destroy()});
  }

  exemplars(data) {
    const list = data.flatMap(({seriesLabels, exemplars}) => exemplars.map(e => ({t: Number(e.timestamp), v: number(e.value), labels: e.labels, series: nameOf(seriesLabels)})));
    return list.sort((a, b) => b.t - a.t).slice(0, maxRows);
  }

  exemplarTable(marks) {
    return el("details", {}, el("summary", {text: `${marks.length} exemplars (◆)`}), el("div", {class: "scroll"}, el("table", {},
      el("thead", {}, el("tr", {}, ...["time", "value", "labels", "series"].map(text => el("th", {text})))),
      el("tbody", {}, ...marks.map(m => el("tr", {}, el("td", {text: dateTime(m.t * 1000)}), el("td", {class: "n", text: short(m.v)}), el("td", {}, el("code", {text: spell(m.labels)})), el("td", {}, el("code", {text: m.series}))))))));
  }

  /** The legend is a table: it hides and solos, sorts, and reads the cursor. */
  legend(lines, p, live) {
    const rows = lines.slice(0, maxRows).map((s, i) => ({i, name: s.name, full: spell(s.metric).slice(0, maxTitle), ...summary(i < maxLines ? p.data[i + 1] : columns([s], this.grid)[1])}));
    const at = el("th", {class: "n", text: "at cursor"}), body = el("tbody"), cells = new Map();
    const set = (i, on) => {
      if (on) this.hidden.delete(i); else this.hidden.add(i);
      p.show(i, on);
      cells.get(i)?.button.setAttribute("aria-pressed", String(on));
    };
    const solo = i => {
      const alone = rows.every(r => r.i >= maxLines || r.i === i || this.hidden.has(r.i)) && !this.hidden.has(i);
      for (const r of rows) if (r.i < maxLines) set(r.i, alone || r.i === i);
    };
    for (const r of rows) {
      const swatch = el("span", {class: "swatch"}), now = el("td", {class: "n"});
      const drawn = r.i < maxLines;
      swatch.style.background = drawn ? colour(r.i) : "transparent";
      const button = el("button", {type: "button", class: "series", disabled: !drawn, "aria-pressed": String(!this.hidden.has(r.i)), title: `${r.full}\nClick hides or shows; Alt+click shows only this one`, onclick: e => e.altKey ? solo(r.i) : set(r.i, this.hidden.has(r.i))}, swatch, el("code", {text: r.name}));
      const only = el("button", {type: "button", class: "small", disabled: !drawn, text: "only", "aria-label": `only ${r.name}`, onclick: () => solo(r.i)});
      const value = v => el("td", {class: "n", text: v === null ? "–" : short(v), title: v === null ? "" : String(v)});
      cells.set(r.i, {now, button, row: el("tr", {}, el("td", {}, button, " ", only), now, value(r.last), value(r.min), value(r.max), value(r.avg))});
      if (this.hidden.has(r.i)) p.show(r.i, false);
    }
    live.read = i => {
      at.textContent = i === null ? "at cursor" : dateTime(p.data[0][i] * 1000);
      for (const [k, c] of cells) if (k < maxLines) { const v = i === null ? null : p.data[k + 1][i]; c.now.textContent = v === null ? "" : short(v); }
    };
    const order = () => {
      const {by, down} = this.sort;
      const sorted = by ? rows.toSorted((a, b) => (by === "name" ? a.name.localeCompare(b.name) : (a[by] ?? -Infinity) - (b[by] ?? -Infinity)) * (down ? -1 : 1)) : rows;
      body.replaceChildren(...sorted.map(r => cells.get(r.i).row));
    };
    const head = (by, text, cls) => sortable(text, cls, by, this.sort, order);
    order();
    const drawn = Math.min(lines.length, maxLines);
    this.body.append(el("div", {class: "under"}, lines.length > drawn ? el("span", {class: "quiet"}, `${drawn} of `, this.totalOf(lines), " lines are drawn") : null,
      copyButton("Copy CSV", () => csv(lines)), copyButton("Copy JSON", () => JSON.stringify(this.answer.range.data, null, 1))),
    el("div", {class: "scroll"}, el("table", {class: "legend"}, el("thead", {}, el("tr", {}, head("name", "series"), at, head("last", "last", "n"), head("min", "min", "n"), head("max", "max", "n"), head("avg", "avg", "n"))), body)));
  }

  drawTable() {
    const {resultType, result} = this.answer.now.data;
    const rows = resultType === "scalar" || resultType === "string" ? [{name: "", value: result[1]}]
      : resultType === "matrix" ? result.map(r => ({name: nameOf(r.metric), metric: r.metric, samples: r.values || [], histograms: r.histograms || []}))
        : result.map(r => ({name: nameOf(r.metric), metric: r.metric, value: r.value && r.value[1], histogram: r.histogram && r.histogram[1]}));
    if (!rows.length) return;
    const body = el("tbody");
    const cell = r => {
      if (r.histogram) return bucketTable(r.histogram);
      if (r.samples) return el("span", {text: [...r.samples.map(([t, v]) => `${v} @ ${dateTime(t * 1000)}`), ...r.histograms.map(([t, h]) => `${h.count} observations @ ${dateTime(t * 1000)}`)].slice(-maxRows).join("\n"), class: "samples"});
      return el("span", {text: r.value});
    };
    const sort = {by: "", down: true};
    const fill = () => {
      const {by, down} = sort;
      const sorted = !by ? rows : rows.toSorted((a, b) => (by === "name" ? a.name.localeCompare(b.name) : (number(a.value ?? "NaN") || -Infinity) - (number(b.value ?? "NaN") || -Infinity)) * (down ? -1 : 1));
      body.replaceChildren(...sorted.slice(0, maxRows).map(r => el("tr", {}, el("td", {}, el("code", {text: r.name, title: r.name.endsWith("…") && spell(r.metric).slice(0, maxTitle)})), el("td", {class: "n"}, cell(r)))));
    };
    const head = (by, text, cls) => sortable(text, cls, by, sort, fill);
    fill();
    this.body.append(el("div", {class: "under"}, el("span", {class: "quiet"}, `at ${dateTime(this.answer.time * 1000)}`, ...rows.length > maxRows ? [`, ${maxRows} of `, this.totalOf(rows), " rows"] : []),
      copyButton("Copy CSV", () => [["series", "value"], ...rows.map(r => [r.metric ? spell(r.metric) : "", r.value ?? ""])].map(csvLine).join("\n")), copyButton("Copy JSON", () => JSON.stringify(this.answer.now.data, null, 1))),
    el("div", {class: "scroll"}, el("table", {class: "values"}, el("thead", {}, el("tr", {}, head("name", "series"), head("value", "value", "n"))), body)));
  }

  async drawTree() {
    try {
      const {data} = await api("parse_query", {query: this.expr}, {signal: this.abort?.signal});
      if (this.tab === "explain") this.body.replaceChildren(tree(data, this.answer.time, this.abort?.signal));
    } catch (e) {
      if (e.name !== "AbortError") this.say(e.message, true);
    }
  }

  remove() {
    this.abort?.abort();
    for (const d of this.drawn) d.destroy();
    this.editor.destroy();
    this.root.remove();
  }
}

const csvLine = fields => fields.map(f => /[",\n]/.test(f) ? `"${f.replaceAll('"', '""')}"` : f).join(",");

/** Times down, series across, as spreadsheets want it. */
function csv(lines) {
  const times = [...new Set(lines.flatMap(l => l.values.map(([t]) => t)))].sort((a, b) => a - b);
  const at = lines.map(l => new Map(l.values));
  return [["time", ...lines.map(l => spell(l.metric))], ...times.map(t => [new Date(t * 1000).toISOString(), ...at.map(m => m.get(t) ?? "")])].map(csvLine).join("\n");
}
