// The page: its views, and what they share.
import "uplot/dist/uPlot.min.css";
import "../style.css";
import {$, api, base, tenant} from "./util.js";
import {explore, initExplore, openURL} from "./explore.js";
import {drawStatus, initStatus, setFlags} from "./status.js";
import {drawCardinality} from "./cardinality.js";
import {initBrowse} from "./browse.js";
import {initTips} from "./tips.js";

const views = ["explore", "status", "cardinality"];

/** The view that the path names; what names none, as the root, is the first. */
function viewOf(path) {
  const name = path.slice(path.lastIndexOf("/") + 1);
  return views.includes(name) ? name : "explore";
}

function show(view) {
  for (const v of views) {
    $(v).hidden = v !== view;
    const link = document.querySelector(`nav a[href="${v}"]`);
    if (v === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = view === "explore" ? "mcached" : `mcached: ${view}`;
  $("notice").hidden = true;
  if (view === "explore") openURL();
  else if (view === "status") drawStatus();
  else drawCardinality(expr => go("explore").then(() => explore(expr)));
}

async function go(view) {
  history.pushState(null, "", base + view + (tenant.name ? "?tenant=" + encodeURIComponent(tenant.name) : ""));
  show(view);
}

async function begin() {
  try {
    const [{data: build}, {data: flags}] = await Promise.all(["buildinfo", "flags"].map(s => api("status/" + s)));
    $("build").textContent = `${build.branch.replace(/^mcached-/, "")}, PromQL of Prometheus ${build.version}`;
    setFlags(flags);
    tenant.header = flags["tenancy.header"] || "";
    $("tenant-box").hidden = !tenant.header;
    $("tenant-name").textContent = tenant.header;
    const here = base.replace(/\/$/, "");
    $("try-write").textContent = `# prometheus.yml\nremote_write:\n- url: ${here}/api/v1/write`;
    $("try-read").textContent = here;
    $("try-query").textContent = `curl '${here}/api/v1/query?query=up'\nmcached query --url=${here} --range=15m 'rate(mcached_bucket_samples_total[1m])'`;
    const [, host, port] = /^(.*):(\d+)$/.exec(flags["resp.listen-address"] || "") || [];
    if (port) $("try-query").textContent += `\nredis-cli -h ${/^(|0\.0\.0\.0|\[::\])$/.test(host) ? location.hostname : host} -p ${port} set hello world`;
  } catch (e) {
    $("build").textContent = e.message;
  }
}

for (const v of views) {
  document.querySelector(`nav a[href="${v}"]`).addEventListener("click", e => {
    if (e.ctrlKey || e.metaKey || e.shiftKey || e.button) return;
    e.preventDefault();
    go(v);
  });
}
window.addEventListener("popstate", () => show(viewOf(location.pathname)));
$("tenant").addEventListener("change", e => { tenant.name = e.target.value.trim(); show(viewOf(location.pathname)); });
for (const b of document.querySelectorAll("button[data-expr]")) b.addEventListener("click", () => explore(b.dataset.expr));
initTips();
initBrowse();
initExplore();
initStatus();
$("notice").removeAttribute("class");
$("page").hidden = false;
begin().then(() => {
  tenant.name = new URLSearchParams(location.search).get("tenant") || tenant.name;
  show(viewOf(location.pathname));
  $("tenant").value = tenant.name;
});
