// An expression as a tree, with what each part gives and takes.
import {api, el, quote, seconds, short, spellDuration} from "./util.js";

const matchers = list => list.filter(m => !(m.name === "__name__" && m.type === "=")).map(m => `${m.name}${m.type}${quote(m.value)}`).join(", ");
const at = n => (n.startOrEnd ? ` @ ${n.startOrEnd}()` : n.timestamp !== null && n.timestamp !== undefined ? ` @ ${n.timestamp / 1000}` : "") + (n.offset ? ` offset ${n.offset < 0 ? "-" : ""}${spellDuration(Math.abs(n.offset))}` : "");
const name = n => n.name && !/^[a-zA-Z_:][a-zA-Z0-9_:]*$/.test(n.name) ? ["", quote(n.name)] : [n.name, ""];

function selector(n) {
  const [plain, quoted] = name(n), inside = [quoted, matchers(n.matchers)].filter(Boolean).join(", ");
  return plain + (inside || !plain ? `{${inside}}` : "");
}

/** The PromQL of a node of parse_query. */
export function text(n) {
  switch (n.type) {
    case "numberLiteral": return n.val;
    case "stringLiteral": return quote(n.val);
    case "parenExpr": return `(${text(n.expr)})`;
    case "unaryExpr": return n.op + text(n.expr);
    case "vectorSelector": return selector(n) + at(n);
    case "matrixSelector": return `${selector(n)}[${spellDuration(n.range)}]${at(n)}`;
    case "subquery": return `${text(n.expr)}[${spellDuration(n.range)}:${n.step ? spellDuration(n.step) : ""}]${at(n)}`;
    case "call": return `${n.func.name}(${n.args.map(text).join(", ")})`;
    case "aggregation": return `${head(n)}(${[n.param, n.expr].filter(Boolean).map(text).join(", ")})`;
    case "binaryExpr": return `${text(n.lhs)} ${head(n)} ${text(n.rhs)}`;
    default: return "…";
  }
}

/** What a node does, without its operands. */
function head(n) {
  if (n.type === "aggregation") return n.op + (n.grouping.length || n.without ? ` ${n.without ? "without" : "by"} (${n.grouping.join(", ")}) ` : "");
  if (n.type === "call") return n.func.name;
  if (n.type !== "binaryExpr") return text(n);
  const m = n.matching;
  let s = n.op + (n.bool ? " bool" : "");
  if (m && (m.labels.length || m.on)) s += ` ${m.on ? "on" : "ignoring"} (${m.labels.join(", ")})`;
  if (m && m.card === "many-to-one") s += ` group_left (${m.include.join(", ")})`;
  if (m && m.card === "one-to-many") s += ` group_right (${m.include.join(", ")})`;
  return s;
}

const children = n => [n.param, ...n.args || [], n.lhs, n.rhs, n.expr].filter(Boolean);
const literal = n => n.type === "numberLiteral" || n.type === "stringLiteral";
const maxNodes = 60;

/** A list of the tree below n, each part asked for at one time. */
export function tree(root, time, signal) {
  let nodes = 0;
  const build = n => {
    const said = el("span", {class: "quiet"}), own = text(n);
    const item = el("li", {}, el("code", {text: head(n)}), " ", said);
    if (!literal(n) && nodes++ < maxNodes) {
      api("query", {query: own, time, stats: "all", limit: 100000}, {signal}).then(({data}) => {
        const count = Array.isArray(data.result) && data.resultType !== "scalar" && data.resultType !== "string" ? `${short(data.result.length)} series` : data.resultType;
        said.textContent = `${count}, ${seconds(data.stats.timings.evalTotalTime)}, ${short(data.stats.samples.totalQueryableSamples)} samples`;
      }, e => { if (e.name !== "AbortError") said.textContent = e.message; });
    }
    const parts = children(n);
    if (parts.length) item.append(el("ul", {}, ...parts.map(build)));
    return item;
  };
  return el("ul", {class: "tree"}, build(root));
}

/** The one selector of an expression, without its time; null if there are several, or none. */
export function onlySelector(root) {
  const found = new Set();
  const look = n => {
    if (n.type === "vectorSelector" || n.type === "matrixSelector") found.add(selector(n));
    children(n).forEach(look);
  };
  look(root);
  return found.size === 1 ? [...found][0] : null;
}
