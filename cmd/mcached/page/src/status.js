// The status view: what the daemon says of itself now (status/self), and the
// history that it keeps of that where nobody else writes (below -/self). A
// refresh is three requests.
import {$, api, bytes, colour, dateTime, el, seconds, short, quote} from "./util.js";
import {figure} from "./plot.js";

const history_ = "-/self/";

/** What the daemon says of itself now: [{metric, value}] in all, and what is asked of it. */
let own = [], warnings = [], instance = "", interval = 15, startedAt = 0, readAt = 0; // seconds

async function readOwn() {
  const {data} = await api("status/self");
  own = data.result.map(r => ({metric: r.metric, value: Number(r.value[1])}));
  readAt = data.result.length ? data.result[0].value[0] : 0;
  ({instance, scrapeInterval: interval, startTime: startedAt, warnings = []} = data);
}

/** The series of a metric that have these labels. */
const rows = (name, labels = {}) => own.filter(r => r.metric.__name__ === name && Object.entries(labels).every(([k, v]) => r.metric[k] === v));
/** Their sum; NaN if there is none. */
const sum = (name, labels) => { const found = rows(name, labels); return found.length ? found.reduce((s, r) => s + r.value, 0) : NaN; };

// In these M stands for the matchers of this daemon and W for a window.
const plots = [
  ["Samples in, per second", "sum(rate(mcached_bucket_samples_total{M}[W]))", short],
  ["Samples removed, per second", "sum by (how) (rate(mcached_series_samples_left_total{M}[W])) > 0", short],
  ["Memory used and budget", `label_replace(mcached_memory_used_bytes{M}, "name", "used", "", "") or label_replace(mcached_memory_budget_bytes{M}, "name", "budget", "", "")`, bytes],
  ["Resident memory and Go heap", `label_replace(process_resident_memory_bytes{M}, "name", "resident", "", "") or label_replace(go_memstats_heap_inuse_bytes{M}, "name", "heap", "", "")`, bytes],
  ["Requests, per second", "sum by (handler) (rate(mcached_http_requests_total{M}[W])) > 0", short],
  ["Time of a request, 99th percentile", "histogram_quantile(0.99, sum by (handler, le) (rate(mcached_http_request_duration_seconds_bucket{M}[W]))) > 0", seconds],
  ["Redis commands, per second", "rate(mcached_resp_commands_total{M}[W])", short],
  ["Processors in use", "rate(process_cpu_seconds_total{M}[W])", short],
  ["", "rate(mcached_bucket_samples_total{M}[W])", short], // of each bucket, for the table
];

/** The name of a series within a plot: the label that tells it from the others. */
const tell = m => m.name || m.how || m.handler || "";

/** All plots are one question: each part of it has a label that says which it is. */
async function readPlots() {
  const to = Math.floor(Date.now() / 1000);
  // A daemon that is younger than the window has no more to show than its life.
  const window_ = Math.min(Number($("window").value), Math.max(60, to - startedAt));
  const step = Math.max(interval, Math.ceil(window_ / 300));
  const grid = {from: to - Math.floor(window_ / step) * step, to, step};
  const lookback = Math.max(4 * interval, 2 * step) + "s", m = `instance=${quote(instance)}`;
  const query = plots.map(([, q], i) => `label_replace(${q.replaceAll("M", m).replaceAll("[W]", `[${lookback}]`)}, "plot", "${i}", "", "")`).join(" or ");
  const {data} = await api("query_range", {query, start: grid.from, end: to, step}, {at: history_});
  return {grid, of: i => data.result.filter(r => r.metric.plot === String(i))};
}

function drawPlots(read) {
  if ($("plots").matches(":hover, :focus-within")) return; // somebody reads them
  const figures = plots.map(([title, , show], i) => title && figure(title, read.of(i).map(r => ({name: tell(r.metric), values: r.values})), read.grid, show)).filter(Boolean);
  $("plots").replaceChildren(...figures.map(f => f.figure));
  for (const f of figures) f.draw();
}

/** What the budget is used for, in the order of the bar. */
const parts = [
  ["heads of series", () => sum("mcached_series_bytes", {part: "heads"})],
  ["sealed blocks", () => sum("mcached_series_bytes", {part: "blocks"})],
  ["directories of blocks", () => sum("mcached_series_bytes", {part: "directories"})],
  ["series index", () => sum("mcached_series_bytes", {part: "index"})],
  ["blobs", () => sum("mcached_blobs_bytes", {state: "live"})],
  ["blob index", () => sum("mcached_blobs_bytes", {state: "index"})],
  ["overflow: evicted series, compressed", () => sum("mcached_series_bytes", {part: "overflow"})],
  ["dead, to be compacted", () => sum("mcached_series_dead_bytes") + sum("mcached_blobs_bytes", {state: "dead"})],
];

// Of fewer samples than these for each series, the bytes are those of the series.
const minPointsPerSeries = 100;

function drawMemory() {
  const [used, budget, resident, available, floor, series, points, held, returned, blobs] = ["mcached_memory_used_bytes", "mcached_memory_budget_bytes",
    "process_resident_memory_bytes", "mcached_pressure_available_bytes", "mcached_pressure_floor_bytes", "mcached_series", "mcached_series_points",
    "mcached_series_bytes", "mcached_memory_returned_bytes_total", "mcached_blobs_entries"].map(n => sum(n));
  const up = readAt - startedAt;
  const sizes = parts.map(([, size]) => size());
  let rest = used;
  const shown = parts.map(([name], i) => { rest -= sizes[i] || 0; return [name, sizes[i] || 0]; });
  shown.push(["room in regions", Math.max(0, rest)]);
  $("memory-line").textContent = `${bytes(used)} used of a budget of ${bytes(budget)}`;
  $("bar").setAttribute("aria-label", `${bytes(used)} used of ${bytes(budget)}: ` + shown.map(([n, v]) => `${n} ${bytes(v)}`).join(", "));
  // A small use of a large budget is drawn as if the budget were eight times what is used.
  const scale = Math.min(budget, Math.max(used * 8, 1));
  $("bar").replaceChildren(...shown.map(([name, v], i) => {
    const s = el("span", {title: `${name}: ${bytes(v)}`});
    s.style.width = 100 * v / scale + "%";
    s.style.background = i === shown.length - 1 ? "var(--line)" : colour(i);
    return s;
  }));
  $("legend").replaceChildren(...shown.filter(([, v]) => v > 0).map(([name, v]) => {
    const i = shown.findIndex(s => s[0] === name), swatch = el("span", {class: "swatch"});
    swatch.style.background = i === shown.length - 1 ? "var(--line)" : colour(i);
    return el("li", {}, swatch, `${name} ${bytes(v)}`);
  }), el("li", {class: "quiet", text: scale < budget ? `(the bar is cut at ${bytes(scale)})` : ""}));
  const days = Math.floor(up / 86400), hours = new Date(up * 1000).toISOString().slice(11, 19);
  $("facts").replaceChildren(...[
    ["series", short(series)], ["samples", short(points)], ["bytes a sample, everything counted", points >= minPointsPerSeries * series ? short(held / points) : "too few yet"], ["blobs", short(blobs)],
    ["resident", bytes(resident)], ["returned to the kernel, in total", bytes(returned)],
    ["available to others", Number.isNaN(available) ? "size is fixed" : bytes(available)], ["kept available", Number.isNaN(floor) ? "size is fixed" : bytes(floor)],
    ["up for", (days ? days + " d " : "") + hours],
  ].map(([k, v]) => el("div", {}, el("dt", {text: k}), el("dd", {text: v}))));
}

/** What the tightest limit has, and the marks between which the budget stays as it is. */
function drawMachine() {
  const one = name => rows(name)[0] || {metric: {}, value: NaN};
  const [total, available, floor, ceiling, used] = ["mcached_pressure_total_bytes", "mcached_pressure_available_bytes", "mcached_pressure_floor_bytes",
    "mcached_pressure_ceiling_bytes", "mcached_memory_used_bytes"].map(one);
  $("machine").hidden = Number.isNaN(total.value);
  if ($("machine").hidden) return; // the size is fixed
  const others = Math.max(0, total.value - available.value - used.value), part = v => Math.min(100, 100 * v / total.value) + "%";
  const bar = [["others", others], ["ours", used.value]].map(([c, v]) => { const s = el("span", {class: c}); s.style.width = part(v); return s; });
  const marks = [["floor", floor], ["ceiling", ceiling]].map(([c, v]) => { const i = el("i", {class: c}); i.style.right = part(v.value); return i; });
  $("machine-bar").replaceChildren(...bar, ...marks);
  const name = total.metric.limit === "node" ? "" : ` (${total.metric.limit})`;
  $("machine-line").textContent = `Of ${bytes(total.value)}${name} others use ${bytes(others)}, this cache ${bytes(used.value)}; ${bytes(available.value)} are available. ` +
    `The budget falls while less than ${bytes(floor.value)} are, and grows above ${bytes(ceiling.value)}: the two marks.`;
  $("machine-bar").setAttribute("aria-label", $("machine-line").textContent);
}

/** The colours of the map are those of the bar. */
const holds = {heads: [0, "heads of series"], blocks: [1, "sealed blocks"], directories: [2, "directories of blocks"], blobs: [4, "blobs"], overflow: [6, "overflow: evicted series, compressed"],
  spare: [-1, "spare: resident, but empty"], free: [-1, "returned to the kernel"]};

async function drawMap() {
  const {data} = await api("status/regions", {});
  const size = data.regionsPerCell * data.regionBytes;
  const counts = {};
  $("map").replaceChildren(...data.cells.map(c => {
    const [i, name] = holds[c.holds] || [7, c.holds];
    counts[name] = (counts[name] || 0) + 1;
    if (i < 0) return el("span", {class: c.holds, title: name});
    const s = el("span", {title: `${name}, ${Math.round(100 * c.live)} % live, ${Math.round(100 * c.dead)} % dead; ${c.age === 1 ? "reclaimed next" : c.age === 0 ? "the youngest" : `older than ${Math.round(100 * c.age)} % of them`}`});
    // Full of life to the top, with what is dead above it, and paler the older it is.
    const live = Math.round(100 * c.live), dead = Math.round(100 * (c.live + c.dead));
    s.style.background = `linear-gradient(to top, ${colour(i)} ${live}%, ${colour(7)} ${live}% ${dead}%, var(--line) ${dead}%)`;
    s.style.opacity = (1 - 0.75 * c.age).toFixed(2);
    return s;
  }));
  $("map").setAttribute("aria-label", "Regions of memory: " + Object.entries(counts).map(([n, c]) => `${c} ${n}`).join(", "));
  $("map-line").textContent = data.cells.length ? `Each square is ${bytes(size)}, in the colours above; the paler, the sooner it is reclaimed. Hatched ones are spare, dotted ones were returned to the kernel.`
    : "No region was ever used.";
}

const maxBuckets = 50;

function drawBuckets(read) {
  const rates = read ? read.of(plots.length - 1).map(r => ({metric: r.metric, value: Number(r.values[r.values.length - 1][1])})) : [];
  const find = (list, b) => { const r = list.find(r => r.metric.bucket === b); return r ? short(r.value) : "–"; };
  const limit = b => rows("mcached_bucket_max_series", {bucket: b}).map(r => short(r.value) + " a " + r.metric.of).join(", ") || "none";
  const largest = rows("mcached_series").sort((a, b) => b.value - a.value).slice(0, maxBuckets);
  $("buckets").tBodies[0].replaceChildren(...largest.map(({metric: {bucket}, value}) => el("tr", {},
    el("td", {text: bucket}), el("td", {class: "n", text: value.toLocaleString()}), el("td", {class: "n", text: limit(bucket)}),
    el("td", {class: "n", text: find(rates, bucket)}), el("td", {class: "n", text: find(rows("mcached_bucket_age"), bucket)}))));
}

/** A list of metrics of this daemon, in their own words. */
function table(id, list) {
  $(id).hidden = list.length === 0;
  $(id).querySelector("tbody").replaceChildren(...list.map(({name, value}) => el("tr", {}, el("td", {text: name}), el("td", {class: "n", text: value}))));
}

const worded = (prefix, {metric: {__name__: name, ...rest}, value}) => ({
  name: [name.replace(prefix, "").replace(/_total$/, "").replaceAll("_", " "), ...Object.values(rest)].join(", "),
  value: /_bytes(_total)?$/.test(name) ? bytes(value) : /timestamp/.test(name) ? (value ? dateTime(value * 1000) : "never") : /_seconds$/.test(name) ? seconds(value) : short(value),
});

/** The limits that rejected requests, if any did. */
const limits = /_(refused|rejected|not_admitted|not_written|connections_closed|floods|slow_bodies|timeouts?)_total$/;

function drawRest() {
  table("forward", own.filter(r => r.metric.__name__.startsWith("mcached_forward_")).map(r => worded("mcached_forward_", r)));
  table("upstream", own.filter(r => r.metric.__name__.startsWith("mcached_upstream_")).map(r => worded("mcached_upstream_", r)));
  table("snapshots", own.filter(r => r.metric.__name__.startsWith("mcached_snapshot_")).map(r => worded("mcached_snapshot_", r)));
  const hit = own.filter(r => r.value > 0 && limits.test(r.metric.__name__)).map(r => worded("mcached_", r));
  table("limits", hit.length ? hit : [{name: "nothing was rejected since the start", value: ""}]);
  $("warnings").hidden = warnings.length === 0;
  $("warnings-list").replaceChildren(...warnings.map(w => el("li", {}, el("time", {text: dateTime(Date.parse(w.time))}), " ", el("span", {text: w.text}))));
}

/** The members of the cluster, if the daemon is one of several. */
async function drawCluster() {
  $("cluster").hidden = rows("mcached_cluster_members").length === 0;
  if ($("cluster").hidden) return;
  const {data} = await api("status/cluster", {});
  const share = v => (100 * v).toFixed(1) + " %";
  $("cluster").querySelector("tbody").replaceChildren(...data.members.map(m => el("tr", {},
    el("td", {text: m.name + (m.self ? " (this one)" : "")}),
    el("td", {text: [m.state, m.suspect && "does not answer", m.differs && "configured otherwise"].filter(Boolean).join(", ")}),
    el("td", {class: "n", text: share(m.share)}), el("td", {class: "n", text: share(m.keys)}),
    el("td", {class: "n", text: m.lag < 0 ? "–" : seconds(m.lag)}), el("td", {text: m.zone || "–"}), el("td", {text: m.http}))));
}

let timer = 0, lastMs = 0;

/** Draws all, and again after a while, as long as somebody looks. */
export async function drawStatus() {
  clearTimeout(timer);
  if ($("status").hidden || document.hidden) return;
  try {
    await readOwn();
    drawMemory();
    drawMachine();
    drawRest();
    const [read] = await Promise.all([interval ? readPlots() : null, drawMap(), drawCluster()]);
    if (read) drawPlots(read);
    else $("plots").replaceChildren(el("p", {class: "quiet", text: "The daemon keeps no history of itself: --self-scrape.interval=15s has it do so."}));
    drawBuckets(read);
    lastMs = Date.now();
    $("notice").hidden = true;
    $("status").classList.remove("gone");
  } catch (e) {
    $("notice").textContent = e.message + (lastMs ? `; what is shown is of ${dateTime(lastMs)}` : "");
    $("notice").hidden = false;
    $("status").classList.toggle("gone", !!e.gone && lastMs > 0);
  }
  timer = setTimeout(drawStatus, Math.max(2, Math.min(interval || 15, 15)) * 1000);
}

export function initStatus() {
  $("window").addEventListener("change", drawStatus);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) drawStatus(); });
}
