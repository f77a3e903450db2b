// The status view: what the daemon says of itself now (status/self), and the
// history that it keeps of that where nobody else writes (below -/self). A
// refresh is three requests, and one more of a member of a cluster.
import {$, api, bytes, colour, dateTime, el, quote, seconds, short} from "./util.js";
import {figure} from "./plot.js";
import {readSelf, rows, self, sum} from "./self.js";
import {drawTables, hitLimits} from "./tables.js";
import {word} from "./tips.js";

const history_ = "-/self/";

/** Flags of the daemon, as main.js reads them. */
let flags = {};

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
  ["Steps of queries, per second, by who computed them", "sum by (source) (rate(mcached_upstream_steps_total{M}[W]))", short, "query.upstream"], // with that flag only
  ["", "rate(mcached_bucket_samples_total{M}[W])", short], // of each bucket, for the table
];

/** The name of a series within a plot: the label that tells it from the others. */
const tell = m => m.name || m.how || m.handler || m.source || "";

/** All plots are one question: each part of it has a label that says which it is. */
async function readPlots() {
  const to = Math.floor(Date.now() / 1000);
  // A daemon that is younger than the window has no more to show than its life.
  const wanted = Number($("window").value), window_ = Math.min(wanted, Math.max(60, to - self.startedAt));
  const step = Math.max(self.interval, Math.ceil(window_ / 300));
  const grid = {from: to - Math.floor(window_ / step) * step, to, step};
  const lookback = Math.max(4 * self.interval, 2 * step) + "s", m = `instance=${quote(self.instance)}`;
  const mark = (query, name) => `label_replace(${query}, "plot", "${name}", "", "")`;
  const asked = plots.map(([, q, , flag], i) => flag && !flags[flag] ? "" : mark(q.replaceAll("M", m).replaceAll("[W]", `[${lookback}]`), i)).filter(Boolean);
  // How often limits were hit within the window: of those that ever were.
  for (const name of new Set(hitLimits().map(r => r.metric.__name__))) asked.push(mark(`increase(${name}{${m}}[${wanted}s] @ end())`, name));
  const {data} = await api("query_range", {query: asked.join(" or "), start: grid.from, end: to, step}, {at: history_});
  return {grid, of: name => data.result.filter(r => r.metric.plot === String(name))};
}

function drawPlots(read) {
  if ($("plots").matches(":hover, :focus-within")) return; // somebody reads them
  const figures = plots.map(([title, , show, flag], i) => title && (!flag || flags[flag]) && figure(title, read.of(i).map(r => ({name: tell(r.metric), values: r.values})), read.grid, show)).filter(Boolean);
  $("plots").replaceChildren(...figures.map(f => f.figure));
  for (const f of figures) f.draw();
}

/** What the budget is used for, in the order of the bar. */
const parts = [
  ["heads of series", () => sum("mcached_series_bytes", {part: "heads"}) + sum("mcached_series_bytes", {part: "partial"}), "The newest samples of each series, as they are written, and the blocks that are not full."],
  ["sealed blocks", () => sum("mcached_series_bytes", {part: "blocks"}), "Older samples, up to 128 of a series in each block, compressed."],
  ["directories of blocks", () => sum("mcached_series_bytes", {part: "directories"}), "Where the blocks of each series are, and when they begin."],
  ["series index", () => sum("mcached_series_bytes", {part: "index"}), "Labels, each once, and which series have them."],
  ["Redis values", () => sum("mcached_blobs_bytes", {state: "live"}), "Keys and values of Redis clients."],
  ["index of Redis values", () => sum("mcached_blobs_bytes", {state: "index"}), "Where the values of Redis clients are."],
  ["overflow", () => sum("mcached_series_bytes", {part: "overflow"}), "Evicted series, kept compressed as long as there is memory. Queries read them."],
  ["dead", () => sum("mcached_series_dead_bytes") + sum("mcached_blobs_bytes", {state: "dead"}), "Deleted or replaced, and not compacted yet."],
  ["remembered answers", () => sum("mcached_memory_account_bytes", {account: "answers"}), "What queries came to, here or at the store behind, kept for the next look."],
];

// Of fewer samples than these for each series, all bytes are those of the series; and of fewer in blocks there is no rule yet.
const minPointsPerSeries = 100, minSealed = 10_000;

/** What one more sample takes, once its head is sealed: everything else is there already. */
function marginal() {
  const points = sum("mcached_series_part_points", {part: "blocks"});
  return points >= minSealed ? short((sum("mcached_series_bytes", {part: "blocks"}) + sum("mcached_series_bytes", {part: "directories"})) / points) : "too few yet";
}

function drawMemory() {
  const [used, budget, resident, available, floor, series, points, held, returned, blobs] = ["mcached_memory_used_bytes", "mcached_memory_budget_bytes",
    "process_resident_memory_bytes", "mcached_pressure_available_bytes", "mcached_pressure_floor_bytes", "mcached_series", "mcached_series_points",
    "mcached_series_bytes", "mcached_memory_returned_bytes_total", "mcached_blobs_entries"].map(n => sum(n));
  const up = self.readAt - self.startedAt;
  const sizes = parts.map(([, size]) => size());
  let rest = used;
  const shown = parts.map(([name, , tip], i) => { rest -= sizes[i] || 0; return [name, sizes[i] || 0, tip]; });
  shown.push(["room in regions", Math.max(0, rest), "Regions are taken whole: what of them is not filled yet."]);
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
  $("legend").replaceChildren(...shown.filter(([, v]) => v > 0).map(([name, v, tip]) => {
    const i = shown.findIndex(s => s[0] === name), swatch = el("span", {class: "swatch"});
    swatch.style.background = i === shown.length - 1 ? "var(--line)" : colour(i);
    return el("li", {}, swatch, word(name, tip), ` ${bytes(v)}`);
  }), el("li", {class: "quiet", text: scale < budget ? `(the bar is cut at ${bytes(scale)})` : ""}));
  const days = Math.floor(up / 86400), hours = new Date(up * 1000).toISOString().slice(11, 19);
  $("facts").replaceChildren(...[
    ["series", short(series), self.help.mcached_series], ["samples", short(points), self.help.mcached_series_points],
    ["bytes for one more sample", marginal(), "What sealed blocks and their directories take, divided by the samples in them: labels, indexes and heads are there already, whatever the number of samples."],
    points >= minPointsPerSeries * series && series > 0 && ["bytes a sample, all included", short(held / points), "All bytes of the metric cache, labels, indexes and heads included, divided by all samples."],
    ["Redis values", short(blobs), self.help.mcached_blobs_entries],
    ["resident", bytes(resident), "What the kernel counts for the process: the budget in use, the Go heap and the program."], ["returned to the kernel", bytes(returned), self.help.mcached_memory_returned_bytes_total],
    !Number.isNaN(available) && ["available to others", bytes(available), self.help.mcached_pressure_available_bytes], !Number.isNaN(floor) && ["kept available", bytes(floor), self.help.mcached_pressure_floor_bytes],
    ["up for", (days ? days + " d " : "") + hours],
  ].filter(Boolean).map(([k, v, tip]) => el("div", {}, el("dt", {}, word(k, tip)), el("dd", {text: v}))));
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
const holds = {heads: [0, "heads of series"], blocks: [1, "sealed blocks"], directories: [2, "directories of blocks"], blobs: [4, "Redis values"], overflow: [6, "overflow"], answers: [8, "remembered answers of the store"],
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

/** Draws, and gives the focus to what has the place of what had it. */
function keepingFocus(draw) {
  const focused = document.activeElement.closest?.("#status [data-tip]");
  draw();
  if (focused && !focused.isConnected) [...$("status").querySelectorAll("[data-tip]")].find(e => e.textContent === focused.textContent && e.dataset.tip === focused.dataset.tip)?.focus({preventScroll: true});
}

let timer = 0, lastMs = 0;

/** Draws all, and again after a while, as long as somebody looks. */
export async function drawStatus() {
  clearTimeout(timer);
  if ($("status").hidden || document.hidden) return;
  try {
    await readSelf();
    keepingFocus(() => {
      drawMemory();
      drawMachine();
    });
    const [read] = await Promise.all([self.interval ? readPlots() : null, drawMap(), drawCluster()]);
    keepingFocus(() => {
      if (read) drawPlots(read);
      else $("plots").replaceChildren(el("p", {class: "quiet", text: "The daemon keeps no history of itself: --self-scrape.interval=15s has it do so."}));
      drawTables({
        rates: read ? read.of(plots.length - 1).map(r => ({metric: r.metric, value: Number(r.values.at(-1)[1])})) : [],
        lately: read && (name => read.of(name)), window_: $("window").selectedOptions[0].text, upstream: !!flags["query.upstream"],
      });
    });
    lastMs = Date.now();
    $("notice").hidden = true;
    $("status").classList.remove("gone");
  } catch (e) {
    $("notice").textContent = e.message + (lastMs ? `; what is shown is of ${dateTime(lastMs)}` : "");
    $("notice").hidden = false;
    $("status").classList.toggle("gone", !!e.gone && lastMs > 0);
  }
  timer = setTimeout(drawStatus, Math.max(2, Math.min(self.interval || 15, 15)) * 1000);
}

/** The flags say which parts there are. */
export function setFlags(f) { flags = f; }

export function initStatus() {
  $("window").addEventListener("change", drawStatus);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) drawStatus(); });
}
