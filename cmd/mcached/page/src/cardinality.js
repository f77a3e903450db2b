// What takes the most: by metric, label and pair, and then within one.
import {$, api, bytes, el, quote, short} from "./util.js";

const top = 20, maxLabels = 30;

const table = (title, rows, show, use) => el("div", {}, el("h3", {text: title}), rows.length ? el("table", {}, el("tbody", {}, ...rows.map(r => el("tr", {},
  el("td", {}, use ? el("button", {type: "button", class: "link", text: r.name, onclick: () => use(r.name)}) : el("code", {text: r.name})), el("td", {class: "n", text: show(Number(r.value))}))))) : el("p", {class: "quiet", text: "none"}));

/** The labels of one metric by how many values they have, and the largest values of one of them. */
async function inside(metric, open) {
  const selector = `{__name__=${quote(metric)}}`, box = $("inside");
  box.replaceChildren(el("h2", {text: metric}), el("p", {class: "quiet", text: "…"}));
  try {
    const {data: labels} = await api("labels", {"match[]": selector});
    const counts = await Promise.all(labels.filter(l => l !== "__name__").slice(0, maxLabels).map(async l =>
      ({name: l, value: (await api(`label/${encodeURIComponent(l)}/values`, {"match[]": selector})).data.length})));
    counts.sort((a, b) => b.value - a.value);
    const values = el("div");
    const show = async label => {
      const {data} = await api("query", {query: `topk(${top}, count by (${/^[a-zA-Z_]\w*$/.test(label) ? label : quote(label)}) (${selector}))`});
      values.replaceChildren(table(`Series now, by ${label}`, data.result.map(r => ({name: r.metric[label] || "(none)", value: r.value[1]})), short));
    };
    box.replaceChildren(el("h2", {}, metric, " ", el("button", {type: "button", class: "small", text: "Explore", onclick: () => open(metric.match(/^[a-zA-Z_:][\w:]*$/) ? metric : selector)})),
      el("div", {class: "tops"}, table("Labels by values", counts, short, l => show(l).catch(e => { values.textContent = e.message; })), values));
  } catch (e) {
    box.replaceChildren(el("p", {class: "said bad", text: e.message}));
  }
}

export async function drawCardinality(open) {
  $("tops").replaceChildren(el("p", {class: "quiet", text: "…"}));
  try {
    const {data} = await api("status/tsdb", {limit: top, bytes: true});
    const {headStats: h} = data;
    $("heads").textContent = `${h.numSeries.toLocaleString()} series, ${h.numLabelPairs.toLocaleString()} pairs of a label and a value`;
    const metric = name => inside(name, open);
    $("tops").replaceChildren(
      table("Metrics by series", data.seriesCountByMetricName, short, metric), table("Metrics by bytes of samples", data.memoryInBytesByMetricName || [], bytes, metric),
      table("Labels by values", data.labelValueCountByLabelName, short), table("Labels by bytes of values", data.memoryInBytesByLabelName, bytes),
      table("Pairs by series", data.seriesCountByLabelValuePair, short));
  } catch (e) {
    $("tops").replaceChildren(el("p", {class: "said bad", text: e.message}));
  }
}
