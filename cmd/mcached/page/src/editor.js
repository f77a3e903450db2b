// An editor for one expression: CodeMirror with Prometheus' own PromQL mode. It
// lives in a shadow root, where the styles that it makes as it goes are allowed
// by the page's content policy.
import {EditorState, Prec} from "@codemirror/state";
import {EditorView, drawSelection, keymap, placeholder} from "@codemirror/view";
import {defaultKeymap, history, historyKeymap, insertNewlineAndIndent} from "@codemirror/commands";
import {acceptCompletion, autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap, completionStatus, currentCompletions, moveCompletionSelection, selectedCompletionIndex} from "@codemirror/autocomplete";
import {HighlightStyle, bracketMatching, ensureSyntaxTree, indentOnInput, syntaxHighlighting} from "@codemirror/language";
import {lintKeymap} from "@codemirror/lint";
import {tags} from "@lezer/highlight";
import {PromQLExtension} from "@prometheus-io/codemirror-promql";
import {ask, base} from "./util.js";

const theme = EditorView.theme({
  "&": {color: "var(--ink)", backgroundColor: "var(--bg)", border: "1px solid var(--line)", borderRadius: "4px", fontSize: "14px"},
  "&.cm-focused": {outline: "2px solid var(--accent)", outlineOffset: "1px"},
  ".cm-content": {fontFamily: "var(--mono)", padding: ".4rem .2rem", caretColor: "var(--ink)"},
  ".cm-scroller": {maxHeight: "14rem", overflow: "auto"},
  ".cm-cursor": {borderLeftColor: "var(--ink)"},
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {background: "color-mix(in srgb, var(--accent) 30%, transparent)"},
  ".cm-tooltip": {backgroundColor: "var(--panel)", color: "var(--ink)", border: "1px solid var(--line)"},
  ".cm-tooltip.cm-tooltip-autocomplete > ul": {fontFamily: "var(--mono)", maxHeight: "16rem"},
  ".cm-tooltip-autocomplete ul li[aria-selected]": {background: "var(--accent)", color: "var(--panel)"},
  ".cm-completionDetail": {float: "right", color: "var(--quiet)", marginLeft: "1rem"},
  ".cm-completionInfo": {maxWidth: "24rem", padding: ".4rem .6rem"},
  ".cm-placeholder": {color: "var(--quiet)"},
  ".cm-completionIcon": {display: "none"},
  // The mode would draw these with pictures, which the content policy has no room for.
  ".cm-lintRange-error": {backgroundImage: "none", textDecoration: "underline wavy var(--bad)"},
  ".cm-lintRange-warning, .cm-lintRange-info": {backgroundImage: "none", textDecoration: "underline wavy var(--c1)"},
});

const highlight = HighlightStyle.define([
  {tag: tags.number, color: "var(--c2)"},
  {tag: tags.string, color: "var(--c4)"},
  {tag: [tags.keyword, tags.operatorKeyword, tags.modifier], color: "var(--c3)"},
  {tag: [tags.function(tags.variableName), tags.standard(tags.name)], color: "var(--c7)"},
  {tag: tags.labelName, color: "var(--c1)"},
  {tag: tags.comment, color: "var(--quiet)", fontStyle: "italic"},
  {tag: tags.invalid, color: "var(--bad)"},
]);

/**
 * Tab takes what is chosen of the offers, or the first of them. While they are
 * on their way it waits for them: only where there is nothing to take does it
 * leave the editor. Typing and moving the cursor call the wait off.
 */
const tab = () => {
  let waits = false;
  const take = view => {
    waits = false;
    if (!currentCompletions(view.state).length) return waits = completionStatus(view.state) === "pending";
    if (selectedCompletionIndex(view.state) === null) moveCompletionSelection(true)(view);
    return acceptCompletion(view);
  };
  const listen = EditorView.updateListener.of(({view, docChanged, selectionSet}) => {
    if (docChanged || selectionSet) waits = false;
    if (waits && completionStatus(view.state) !== "pending") setTimeout(() => waits && take(view)); // not while an update is under way
  });
  return [Prec.highest(keymap.of([{key: "Tab", run: take}])), listen];
};

/** Makes an editor in host. run is called when the person asks for the answer. */
export function editor(host, text, {label, run, changed}) {
  const root = host.attachShadow({mode: "open", delegatesFocus: true});
  const promql = new PromQLExtension()
    .setComplete({remote: {url: base.replace(/\/$/, ""), fetchFn: ask, httpMethod: "GET"}, maxMetricsMetadata: 20000})
    .activateLinter(true);
  const enter = view => {
    if (currentCompletions(view.state).length && selectedCompletionIndex(view.state) !== null) return false;
    run();
    return true;
  };
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: text,
      extensions: [
        Prec.highest(keymap.of([{key: "Enter", run: enter}, {key: "Shift-Enter", run: insertNewlineAndIndent}])), tab(),
        theme, history(), drawSelection(), indentOnInput(), bracketMatching(), closeBrackets(), syntaxHighlighting(highlight),
        autocompletion({selectOnOpen: false, interactionDelay: 0}), EditorView.lineWrapping, promql.asExtension(),
        keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...historyKeymap, ...completionKeymap, ...lintKeymap]),
        placeholder("an expression, as rate(mcached_bucket_samples_total[5m])"),
        EditorView.contentAttributes.of({"aria-label": label, spellcheck: "false", autocapitalize: "off"}),
        EditorView.updateListener.of(u => { if (u.docChanged) changed(u.state.doc.toString()); }),
      ],
    }),
  });
  return {
    view,
    get text() { return view.state.doc.toString(); },
    set text(t) { if (t !== view.state.doc.toString()) view.dispatch({changes: {from: 0, to: view.state.doc.length, insert: t}}); },
    /** Whether the text looks like an expression: what does not is asked for once, for the server's words. */
    get parses() {
      let ok = true;
      ensureSyntaxTree(view.state, view.state.doc.length, 200)?.iterate({enter: n => { if (n.type.isError) ok = false; }});
      return ok;
    },
    insert(t) { view.dispatch(view.state.replaceSelection(t)); view.focus(); },
    focus() { view.focus(); },
    destroy() { view.destroy(); },
  };
}
