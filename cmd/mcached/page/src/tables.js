// The tables of the status view: each row a few words, what they mean, and a value.
import {$, bytes, colour, dateTime, el, seconds, short} from "./util.js";
import {rows, self, sum, valueOf} from "./self.js";
import {word} from "./tips.js";

/** Fills a table with [{text, tip, values}], or hides its section if there is none. */
function fill(id, list) {
  $(id).hidden = list.length === 0;
  $(id).querySelector("tbody").replaceChildren(...list.map(({text, tip, values}) => el("tr", {}, el("td", {}, word(text, tip)), ...values.map(v => el("td", {class: "n", text: v})))));
}

/** Rows of single metrics: [words, metric, labels], those that are there; what they mean is the metric's own help. */
const ofMetrics = list => list.filter(([, name, labels]) => rows(name, labels).length).map(([text, name, labels]) => ({text, tip: self.help[name], values: [valueOf(name, sum(name, labels))]}));

// Shares: what each account uses of the memory, and what it keeps when memory is short.
const accounts = {metrics: "metrics", overflow: "overflow: evicted series, compressed", blobs: "values of Redis clients", answers: "remembered answers"};

function drawShares(upstream) {
  const shown = rows("mcached_memory_account_bytes").filter(r => upstream || r.metric.account !== "answers" || r.value > 0);
  $("shares").querySelector("tbody").replaceChildren(...shown.map(({metric: {account}, value}) => {
    const share = sum("mcached_memory_account_share_bytes", {account}), bar = el("span", {class: "bucket"});
    bar.style.width = Math.min(100, share ? 100 * value / share : 0) + "%";
    return el("tr", {}, el("td", {text: accounts[account] || account}), el("td", {class: "n", text: bytes(value)}), el("td", {class: "n", text: bytes(share)}), el("td", {class: "bars"}, bar));
  }));
}

function drawForward() {
  fill("forward", ofMetrics([
    ["oldest sample that waits", "mcached_forward_dirty_age_seconds"], ["samples that wait", "mcached_forward_dirty_samples"], ["of them in flight", "mcached_forward_in_flight_samples"], ["samples that may wait", "mcached_forward_dirty_limit_samples"],
    ["last acknowledged", "mcached_forward_last_success_timestamp_seconds"], ["samples taken", "mcached_forward_samples_total", {result: "taken"}], ["samples rejected by the receiver", "mcached_forward_samples_total", {result: "rejected"}],
    ["requests", "mcached_forward_requests_total"], ["retries", "mcached_forward_retries_total"], ["requests cut in two", "mcached_forward_splits_total"], ["forwarded early", "mcached_forward_forced_total"],
    ["bytes sent", "mcached_forward_bytes_total"], ["runs", "mcached_forward_runs_total"], ["writes rejected as too many samples wait", "mcached_forward_refused_total"],
  ]));
}

// Who computed the steps of queries, in the order of what they cost.
const sources = {memory: "from memory", remembered: "remembered", upstream: "asked of the store"};

function drawUpstream(on) {
  $("upstream").hidden = !on;
  if (!on) return;
  const steps = rows("mcached_upstream_steps_total"), all = steps.reduce((s, r) => s + r.value, 0);
  const order = Object.keys(sources), place = s => (order.indexOf(s) + 1 || order.length + 1);
  const sorted = steps.toSorted((a, b) => place(a.metric.source) - place(b.metric.source)).map(({metric: {source}, value}) => ({name: sources[source] || source, part: all ? 100 * value / all : 0, value}));
  $("sources").replaceChildren(...sorted.map(({name, part}, i) => {
    const s = el("span", {title: `${name}: ${part.toFixed(1)} %`});
    s.style.width = part + "%";
    s.style.background = colour(i);
    return s;
  }));
  $("sources").setAttribute("aria-label", all ? "Steps of queries: " + sorted.map(({name, part}) => `${name} ${part.toFixed(1)} %`).join(", ") : "No step was computed yet");
  $("sources-legend").replaceChildren(...all ? sorted.map(({name, part, value}, i) => {
    const swatch = el("span", {class: "swatch"});
    swatch.style.background = colour(i);
    return el("li", {}, swatch, `${name} ${part.toFixed(1)} % (${short(value)} steps)`);
  }) : [el("li", {class: "quiet", text: "No query has been answered yet."})]);
  const prefix = "mcached_upstream_";
  const requests = sum("mcached_upstream_queries_total") - (sum("mcached_upstream_queries_total", {outcome: "skipped"}) || 0);
  const known = ofMetrics([
    ["queries split between memory and the store", "mcached_upstream_split_queries_total"],
    ["requests answered", "mcached_upstream_queries_total", {outcome: "answered"}], ["requests that the store refused", "mcached_upstream_queries_total", {outcome: "refused"}],
    ["requests that failed", "mcached_upstream_queries_total", {outcome: "failed"}], ["not asked, as it had failed before", "mcached_upstream_queries_total", {outcome: "skipped"}],
    ["steps of its answers put into memory", "mcached_upstream_kept_steps_total"], ["bytes of its answers", "mcached_upstream_response_bytes_total"], ["disagreements where the parts meet", "mcached_upstream_disagreements_total", {found: "seam"}],
    ["answers compared afterwards that were the same", "mcached_upstream_audits_total", {outcome: "agreed"}], ["that differed", "mcached_upstream_audits_total", {outcome: "differed"}], ["that could not be compared", "mcached_upstream_audits_total", {outcome: "failed"}], ["metrics that are not split now", "mcached_upstream_paused_metrics"],
  ]);
  if (requests > 0) known.splice(5, 0, {text: "time of a request, on average", tip: self.help["mcached_upstream_request_seconds_total"], values: [seconds(sum("mcached_upstream_request_seconds_total") / requests)]});
  // Metrics that are younger than these words.
  const worded = ["steps_total", "queries_total", "split_queries_total", "response_bytes_total", "kept_steps_total", "audits_total", "request_seconds_total", "disagreements_total", "paused_metrics"].map(n => prefix + n);
  const others = self.own.filter(r => r.metric.__name__.startsWith(prefix) && !worded.includes(r.metric.__name__)).map(({metric: {__name__: name, ...rest}, value}) =>
    ({text: [name.slice(prefix.length).replace(/(_total|_seconds|_bytes)+$/, "").replaceAll("_", " "), ...Object.values(rest)].join(", "), tip: self.help[name], values: [valueOf(name, value)]}));
  fill("upstream", [...known, ...others]);
}

function drawSnapshots() {
  fill("snapshots", ofMetrics([
    ["newest", "mcached_snapshot_last_success_timestamp_seconds"], ["size", "mcached_snapshot_size_bytes"], ["time to write it", "mcached_snapshot_duration_seconds"],
    ["not written", "mcached_snapshot_errors_total", {op: "save"}], ["not read as a whole", "mcached_snapshot_errors_total", {op: "load"}],
  ]));
}

// What rejects, in words.
const limits = {
  mcached_remote_write_refused_total: "remote writes answered with an error", mcached_remote_write_not_written_total: "samples not written",
  mcached_remote_write_not_admitted_total: "remote writes rejected: too many bytes in flight", mcached_remote_write_new_series_floods_total: "remote writes rejected: too many new series a second",
  mcached_remote_write_slow_bodies_total: "remote writes rejected: the body came too slowly", mcached_bucket_series_refused_total: "new series rejected",
  mcached_forward_refused_total: "writes rejected: too many samples wait to be forwarded", mcached_query_rejected_total: "queries rejected: too many waited",
  mcached_admission_refused_total: "requests rejected at admission", mcached_admission_cut_total: "stalled requests aborted", mcached_resp_connections_closed_total: "Redis connections refused or closed",
  mcached_blobs_refused_total: "Redis values rejected: no memory", mcached_overflow_refused_total: "series evicted whole: no memory to compress them",
  mcached_memory_owners_dropped_total: "shards that dropped everything: the budget was below the index", mcached_cluster_write_unacknowledged_series_total: "series not acknowledged: too few members took them",
};

const key = ({metric: {__name__: _, ...labels}}) => JSON.stringify(Object.entries(labels).filter(([k]) => !["instance", "job", "plot"].includes(k)).sort());

/** The limits that have rejected something since the start, by metric. */
export const hitLimits = () => self.own.filter(r => r.value > 0 && r.metric.__name__ in limits);

/** lately(name) are the same series in the history, as increases within its window; null if there is no history. */
function drawLimits(lately, window_) {
  const hit = hitLimits().map(r => {
    const {metric: {__name__: name, ...labels}} = r, past = lately && lately(name).find(s => key(s) === key(r));
    const few = past ? Math.min(r.value, Math.round(Number(past.values.at(-1)[1]))) : 0; // rates are extrapolated
    return {few, text: limits[name] + (Object.keys(labels).length ? ` (${Object.entries(labels).map(([k, v]) => `${k} ${v}`).join(", ")})` : ""), tip: self.help[name], values: [lately ? few ? short(few) : "–" : "?", short(r.value)]};
  });
  hit.sort((a, b) => b.few - a.few);
  fill("limits", hit.length ? hit : [{text: "nothing was rejected since the start", values: ["", ""]}]);
  $("limits-lately").textContent = `last ${window_}`;
}

const maxBuckets = 50;

/** rates are the samples a second of each bucket, as [{metric, value}]. */
function drawBuckets(rates) {
  const find = (list, b) => { const r = list.find(r => r.metric.bucket === b); return r ? short(r.value) : "–"; };
  const limit = b => rows("mcached_bucket_max_series", {bucket: b}).map(r => short(r.value) + " a " + r.metric.of).join(", ") || "none";
  const from = b => { const v = sum("mcached_bucket_covered_from_timestamp_seconds", {bucket: b}); return v > 0 ? dateTime(v * 1000) : "–"; };
  const largest = rows("mcached_series").sort((a, b) => b.value - a.value), shown = largest.slice(0, maxBuckets);
  $("buckets").tBodies[0].replaceChildren(...shown.map(({metric: {bucket}, value}) => el("tr", {},
    el("td", {text: bucket}), el("td", {class: "n", text: value.toLocaleString()}), el("td", {class: "n", text: limit(bucket)}),
    el("td", {class: "n", text: find(rates, bucket)}), el("td", {class: "n", text: from(bucket)}), el("td", {class: "n", text: find(rows("mcached_bucket_coverage_gaps"), bucket)}),
    el("td", {class: "n", text: find(rows("mcached_bucket_age"), bucket)}))));
  $("buckets-more").textContent = largest.length > maxBuckets ? `${maxBuckets} of ${largest.length} buckets are listed, the largest` : "";
}

/** All of them. window_ is in words. */
export function drawTables({rates, lately, window_, upstream}) {
  drawShares(upstream);
  drawBuckets(rates);
  drawLimits(lately, window_);
  drawForward();
  drawUpstream(upstream);
  drawSnapshots();
  $("warnings").hidden = self.warnings.length === 0;
  $("warnings-list").replaceChildren(...self.warnings.map(w => el("li", {}, el("time", {text: dateTime(Date.parse(w.time))}), " ", el("span", {text: w.text}))));
}
