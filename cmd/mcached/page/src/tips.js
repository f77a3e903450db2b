// Words that are the product's own say what they mean where the pointer or the
// focus is. One box serves all of them, so that no scrolling part cuts it off.
import {el} from "./util.js";

/** A word with its meaning; one without is just a word. */
export const word = (text, tip) => tip ? el("span", {class: "word", tabindex: 0, "data-tip": tip, "aria-description": tip, text}) : el("span", {text});

/** Makes elements with data-tip show it: those that are there, and those that come. */
export function initTips() {
  const box = el("div", {id: "tip", role: "tooltip", hidden: true});
  document.body.append(box);
  for (const e of document.querySelectorAll("[data-tip]")) {
    e.setAttribute("aria-description", e.dataset.tip);
    if (e.tabIndex < 0) e.tabIndex = 0;
  }
  let of = null;
  const hide = () => { of = null; box.hidden = true; };
  const place = () => {
    if (!of) return;
    const at = of.getBoundingClientRect(), {width, height} = box.getBoundingClientRect();
    box.style.left = Math.max(8, Math.min(at.left, innerWidth - width - 8)) + "px";
    box.style.top = (at.bottom + height + 10 > innerHeight ? at.top - height - 6 : at.bottom + 6) + "px";
  };
  const show = e => {
    of = e.target.closest?.("[data-tip]");
    if (!of) return hide();
    box.textContent = of.dataset.tip;
    box.hidden = false;
    place();
  };
  for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, show);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", place, true);
  document.addEventListener("keydown", e => { if (e.key === "Escape") hide(); });
}
