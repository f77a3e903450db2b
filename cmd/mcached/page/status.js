// The status part: what the daemon says of itself now (status/self), and the
// history that it keeps of that where nobody else writes (below -/self).
"use strict";

const $ = id => document.getElementById(id);

/** Asks the API; what goes wrong is an Error with the API's own words. */
async function api(path, params, base = "") {
  let res;
  try {
    res = await fetch(base + "api/v1/" + path + "?" + new URLSearchParams(params));
  } catch {
    throw new Error("the daemon does not answer");
  }
  let body;
  try {
    body = await res.json();
  } catch {
    throw new Error(`${res.status} ${res.statusText}`);
  }
  if (body.status !== "success") throw new Error(body.error || `${res.status} ${res.statusText}`);
  return body;
}

const history_ = "-/self/";

/** What the daemon says of itself now: [{metric, value}] in all, and what is asked of it. */
let own = [], instance = "", interval = 15, startedAt = 0, readAt = 0; // seconds

async function readOwn() {
  const {data} = await api("status/self", {});
  own = data.result.map(r => ({metric: r.metric, value: Number(r.value[1])}));
  readAt = data.result.length ? data.result[0].value[0] : 0;
  ({instance, scrapeInterval: interval, startTime: startedAt} = data);
}

/** The series of a metric that have these labels. */
const rows = (name, labels = {}) => own.filter(r => r.metric.__name__ === name && Object.entries(labels).every(([k, v]) => r.metric[k] === v));
/** Their sum; NaN if there is none. */
const sum = (name, labels) => { const found = rows(name, labels); return found.length ? found.reduce((s, r) => s + r.value, 0) : NaN; };

// In these M stands for the matchers of this daemon and W for a window.
const plots = [
  ["Samples in, per second", "sum(rate(mcached_bucket_samples_total{M}[W]))", short],
  ["Samples that left, per second", "sum by (how) (rate(mcached_series_samples_left_total{M}[W])) > 0", short],
  ["Memory used and budget", `label_replace(mcached_memory_used_bytes{M}, "name", "used", "", "") or label_replace(mcached_memory_budget_bytes{M}, "name", "budget", "", "")`, bytes],
  ["Resident memory and Go heap", `label_replace(process_resident_memory_bytes{M}, "name", "resident", "", "") or label_replace(go_memstats_heap_inuse_bytes{M}, "name", "heap", "", "")`, bytes],
  ["Requests, per second", "sum by (handler) (rate(mcached_http_requests_total{M}[W])) > 0", short],
  ["Time of a request, 99th percentile", 'histogram_quantile(0.99, sum by (handler, le) (rate(mcached_http_request_duration_seconds_bucket{M}[W]))) > 0', v => v < 1 ? trim(v * 1000) + " ms" : trim(v) + " s"],
  ["Redis commands, per second", "rate(mcached_resp_commands_total{M}[W])", short],
  ["Processors in use", "rate(process_cpu_seconds_total{M}[W])", short],
];

/** The name of a series within a plot: the label that tells it from the others. */
const tell = m => m.name || m.how || m.handler || Object.entries(m).map(([k, v]) => `${k}=${v}`).join(" ");

async function drawPlots() {
  if (!interval) return $("plots").replaceChildren(el("p", {class: "quiet", text: "The daemon keeps no history of itself: --self-scrape.interval=15s has it do so."}));
  const to = Math.floor(Date.now() / 1000);
  // A daemon that is younger than the window has no more to show than its life.
  const window_ = Math.min(Number($("window").value), Math.max(60, to - startedAt)), from = to - window_;
  const step = Math.max(interval, Math.ceil(window_ / 300));
  const lookback = Math.max(4 * interval, 2 * step) + "s";
  const figures = await Promise.all(plots.map(async ([title, query, show]) => {
    const {data} = await api("query_range", {query: query.replaceAll("M", `instance=${JSON.stringify(instance)}`).replaceAll("[W]", `[${lookback}]`), start: from, end: to, step}, history_);
    return figure(title, data.result.map(r => ({name: tell(r.metric), values: r.values})), from, to, step, show);
  }));
  if (!$("plots").matches(":hover")) $("plots").replaceChildren(...figures);
}

/** What the budget is used for, in the order of the bar. */
const parts = [
  ["heads of series", () => sum("mcached_series_bytes", {part: "heads"})],
  ["sealed blocks", () => sum("mcached_series_bytes", {part: "blocks"})],
  ["directories of blocks", () => sum("mcached_series_bytes", {part: "directories"})],
  ["series index", () => sum("mcached_series_bytes", {part: "index"})],
  ["blobs", () => sum("mcached_blobs_bytes", {state: "live"})],
  ["blob index", () => sum("mcached_blobs_bytes", {state: "index"})],
  ["evicted series", () => sum("mcached_series_bytes", {part: "overflow"})],
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
    ["series", short(series)], ["samples", short(points)], ["bytes a sample, all in", points >= minPointsPerSeries * series ? short(held / points) : "too few yet"], ["blobs", short(blobs)],
    ["resident", bytes(resident)], ["given back, all in all", bytes(returned)],
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
const holds = {heads: [0, "heads of series"], blocks: [1, "sealed blocks"], directories: [2, "directories of blocks"], blobs: [4, "blobs"], overflow: [6, "evicted series"],
  spare: [-1, "spare: resident, but empty"], free: [-1, "given back to the machine"]};

async function drawMap() {
  const {data} = await api("status/regions", {});
  const size = data.regionsPerCell * data.regionBytes;
  const counts = {};
  $("map").replaceChildren(...data.cells.map(c => {
    const [i, name] = holds[c.holds] || [7, c.holds];
    counts[name] = (counts[name] || 0) + 1;
    if (i < 0) return el("span", {class: c.holds, title: name});
    const s = el("span", {title: `${name}, ${Math.round(100 * c.live)} % live, ${Math.round(100 * c.dead)} % dead; ${c.age === 1 ? "goes next" : c.age === 0 ? "the youngest" : `older than ${Math.round(100 * c.age)} % of them`}`});
    // Full of life to the top, with what is dead above it, and paler the older it is.
    const live = Math.round(100 * c.live), dead = Math.round(100 * (c.live + c.dead));
    s.style.background = `linear-gradient(to top, ${colour(i)} ${live}%, ${colour(7)} ${live}% ${dead}%, var(--line) ${dead}%)`;
    s.style.opacity = (1 - 0.75 * c.age).toFixed(2);
    return s;
  }));
  $("map").setAttribute("aria-label", "Regions of memory: " + Object.entries(counts).map(([n, c]) => `${c} ${n}`).join(", "));
  $("map-line").textContent = data.cells.length ? `Each square is ${bytes(size)}, in the colours above; the paler, the sooner it goes when memory is wanted. Hatched is spare, dotted was given back.`
    : "No region was ever used.";
}

/** What the forwarding of samples tells of itself, if it is on. */
function drawForward() {
  const list = own.filter(r => r.metric.__name__.startsWith("mcached_forward_"));
  $("forward").hidden = list.length === 0;
  $("queue").tBodies[0].replaceChildren(...list.map(({metric: {__name__: name, ...rest}, value}) => el("tr", {},
    el("td", {text: [name.replace("mcached_forward_", "").replaceAll("_", " "), ...Object.values(rest)].join(", ")}),
    el("td", {class: "n", text: name.endsWith("_bytes") || name.endsWith("_bytes_total") ? bytes(value) : short(value)}))));
}

const maxBuckets = 50;

async function drawBuckets() {
  let rates = [];
  if (interval) {
    const {data} = await api("query", {query: `rate(mcached_bucket_samples_total{instance=${JSON.stringify(instance)}}[${4 * interval}s])`}, history_);
    rates = data.result.map(r => ({metric: r.metric, value: Number(r.value[1])}));
  }
  const find = (list, b) => { const r = list.find(r => r.metric.bucket === b); return r ? short(r.value) : "–"; };
  const limit = b => rows("mcached_bucket_max_series", {bucket: b}).map(r => short(r.value) + " a " + r.metric.of).join(", ") || "none";
  const largest = rows("mcached_series").sort((a, b) => b.value - a.value).slice(0, maxBuckets);
  $("buckets").tBodies[0].replaceChildren(...largest.map(({metric: {bucket}, value}) => el("tr", {},
    el("td", {text: bucket}), el("td", {class: "n", text: value.toLocaleString()}), el("td", {class: "n", text: limit(bucket)}),
    el("td", {class: "n", text: find(rates, bucket)}), el("td", {class: "n", text: find(rows("mcached_bucket_age"), bucket)}))));
}

async function countLargest() {
  $("count").disabled = true;
  try {
    const {data} = await api("status/tsdb", {limit: 10, bytes: true});
    const list = (title, rows, show = short) => el("div", {}, el("h3", {text: title}),
      el("table", {}, el("tbody", {}, ...rows.map(r => el("tr", {}, el("td", {text: r.name}), el("td", {class: "n", text: show(r.value)}))))));
    $("tops").replaceChildren(list("Metrics by series", data.seriesCountByMetricName), list("Metrics by bytes of samples", data.memoryInBytesByMetricName || [], bytes), list("Labels by values", data.labelValueCountByLabelName),
      list("Labels by bytes of values", data.memoryInBytesByLabelName, bytes), list("Pairs by series", data.seriesCountByLabelValuePair));
  } catch (e) {
    $("tops").textContent = e.message;
  } finally {
    $("count").disabled = false;
  }
}

let timer;
async function refresh() {
  clearTimeout(timer);
  try {
    await readOwn();
    drawMemory();
    drawMachine();
    drawForward();
    await Promise.all([drawMap(), drawPlots(), drawBuckets()]);
    $("notice").hidden = true;
  } catch (e) {
    $("notice").textContent = e.message;
    $("notice").hidden = false;
  }
  timer = setTimeout(refresh, Math.max(2, Math.min(interval || 15, 15)) * 1000);
}

async function begin() {
  $("notice").hidden = true;
  $("notice").removeAttribute("class");
  const base = location.href.replace(/[#?].*$/, "").replace(/\/$/, "");
  $("try-write").textContent = `# prometheus.yml\nremote_write:\n- url: ${base}/api/v1/write`;
  $("try-read").textContent = base;
  $("try-query").textContent = `curl '${base}/api/v1/query?query=up'\nmcached query --url=${base} --range=15m 'rate(mcached_bucket_samples_total[1m])'`;
  try {
    const [{data: build}, {data: flags}] = await Promise.all(["buildinfo", "flags"].map(s => api("status/" + s, {})));
    $("build").textContent = `${build.branch.replace(/^mcached-/, "")}, PromQL of Prometheus ${build.version}, ${build.goVersion}`;
    if (flags["resp.listen-address"]) {
      const [, host, port] = /^(.*):(\d+)$/.exec(flags["resp.listen-address"]) || [];
      if (port) $("try-query").textContent += `\nredis-cli -h ${/^(|0\.0\.0\.0|\[::\])$/.test(host) ? location.hostname : host} -p ${port} set hello world`;
    }
  } catch (e) {
    $("build").textContent = e.message;
  }
  refresh();
}

$("window").addEventListener("change", refresh);
$("count").addEventListener("click", countLargest);
begin();
