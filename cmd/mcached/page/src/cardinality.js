// What takes the most: by metric, label and pair, and then within one. What is
// looked at is in the URL, so that Back goes back.
import {$, api, base, bytes, el, quote, short, tenant} from "./util.js";

const top = 20, maxLabels = 30;

const table = (title, rows, show, use) => el("div", {}, el("h3", {text: title}), rows.length ? el("table", {}, el("tbody", {}, ...rows.map(r => el("tr", {},
  el("td", {}, use ? el("button", {type: "button", class: "link", text: r.name, onclick: () => use(r.name)}) : el("code", {text: r.name})), el("td", {class: "n", text: show(Number(r.value))}))))) : el("p", {class: "quiet", text: "none"}));

const labelName = l => /^[a-zA-Z_]\w*$/.test(l) ? l : quote(l);

let open = () => {};

/** Shows what is within a metric, a label, or a label of a metric. */
function look(at) {
  const p = new URLSearchParams(Object.entries(at).filter(([, v]) => v));
  if (tenant.name) p.set("tenant", tenant.name);
  const to = `${base}cardinality?${p}`;
  if (to !== location.href) history.pushState(null, "", to);
  $("cardinality").scrollIntoView({block: "start"});
  return inside(at);
}

/** The labels of a metric by how many values they have, and the values of a label by how many series. */
async function inside({metric, label}) {
  const box = $("inside");
  box.hidden = !metric && !label;
  if (box.hidden) return;
  const selector = metric ? `{__name__=${quote(metric)}}` : `{${labelName(label)}!=""}`;
  box.replaceChildren(el("h2", {text: metric || label}), el("p", {class: "quiet", text: "…"}));
  try {
    const [labels, values] = await Promise.all([metric ? labelsOf(selector) : null, label ? api("query", {query: `topk(${top}, count by (${labelName(label)}) (${selector}))`}) : null]);
    box.replaceChildren(
      el("h2", {}, metric || label, " ", el("button", {type: "button", class: "small", text: "Explore", onclick: () => open(metric && /^[a-zA-Z_:][\w:]*$/.test(metric) ? metric : selector)})),
      el("div", {class: "tops"},
        labels && table("Labels by values", labels, short, l => look({metric, label: l})),
        values && table(`Series now, by ${label}`, values.data.result.map(r => ({name: r.metric[label] || "(none)", value: r.value[1]})), short,
          v => v !== "(none)" && open(`${metric && /^[a-zA-Z_:][\w:]*$/.test(metric) ? metric : ""}{${metric && !/^[a-zA-Z_:][\w:]*$/.test(metric) ? quote(metric) + ", " : ""}${labelName(label)}=${quote(v)}}`))));
  } catch (e) {
    box.replaceChildren(el("p", {class: "said bad", text: e.message}));
  }
}

async function labelsOf(selector) {
  const {data} = await api("labels", {"match[]": selector});
  const counts = await Promise.all(data.filter(l => l !== "__name__").slice(0, maxLabels).map(async l =>
    ({name: l, value: (await api(`label/${encodeURIComponent(l)}/values`, {"match[]": selector})).data.length})));
  return counts.sort((a, b) => b.value - a.value);
}

/** Draws the view; explore opens an expression. */
export async function drawCardinality(explore) {
  open = explore;
  $("tops").replaceChildren(el("p", {class: "quiet", text: "…"}));
  const given = new URLSearchParams(location.search), at = {metric: given.get("metric"), label: given.get("label")};
  const within = inside(at);
  try {
    const {data} = await api("status/tsdb", {limit: top, bytes: true});
    const {headStats: h} = data;
    $("heads").textContent = `${h.numSeries.toLocaleString("en")} series, ${h.numLabelPairs.toLocaleString("en")} pairs of a label and a value. A metric or a label leads to what is within, a pair to its series.`;
    const metric = m => look({metric: m}), label = l => look({label: l});
    const pair = text => { const i = text.indexOf("="); open(`{${labelName(text.slice(0, i))}=${quote(text.slice(i + 1))}}`); };
    $("tops").replaceChildren(
      table("Metrics by series", data.seriesCountByMetricName, short, metric), table("Metrics by bytes of samples", data.memoryInBytesByMetricName || [], bytes, metric),
      table("Labels by values", data.labelValueCountByLabelName, short, label), table("Labels by bytes of values", data.memoryInBytesByLabelName, bytes, label),
      table("Pairs by series", data.seriesCountByLabelValuePair, short, pair));
  } catch (e) {
    $("tops").replaceChildren(el("p", {class: "said bad", text: e.message}));
  }
  await within;
}
