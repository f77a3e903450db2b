// The metric browser: names, what they mean, how many series they have.
import {$, api, el, short} from "./util.js";

const maxNames = 500;
let names = null, meta = {}, counts = new Map(), take = null;

async function load() {
  const [list, info, all] = await Promise.all([api("label/__name__/values", {limit: 20000}), api("metadata").catch(() => ({data: {}})), api("status/tsdb", {limit: 10000}).catch(() => null)]);
  names = list.data;
  meta = info.data;
  counts = new Map((all?.data.seriesCountByMetricName || []).map(({name, value}) => [name, Number(value)]));
}

function draw() {
  const wanted = $("browse-find").value.trim().toLowerCase();
  const found = names.filter(n => n.toLowerCase().includes(wanted) || (meta[n]?.[0]?.help || "").toLowerCase().includes(wanted));
  $("browse-count").textContent = found.length > maxNames ? `${short(found.length)} metrics, the first ${maxNames} are listed` : `${found.length} metrics`;
  $("browse-list").replaceChildren(...found.slice(0, maxNames).map(n => {
    const m = meta[n]?.[0], count = counts.get(n);
    const b = el("button", {type: "button", class: "link", text: n, onclick: () => { $("browse").close(); take(n); }});
    return el("li", {}, b, " ", el("span", {class: "quiet", text: [m && m.type, count && `${count.toLocaleString("en")} series`].filter(Boolean).join(", ")}), m?.help ? el("div", {class: "quiet", text: m.help}) : null);
  }));
}

/** Opens the browser; use gets the name that is chosen. */
export async function browse(use) {
  take = use;
  $("browse").showModal();
  $("browse-find").focus();
  $("browse-count").textContent = "…";
  try {
    await load();
    draw();
  } catch (e) {
    $("browse-count").textContent = e.message;
  }
}

export function initBrowse() {
  $("browse-find").addEventListener("input", () => names && draw());
  $("browse-close").addEventListener("click", () => $("browse").close());
}
