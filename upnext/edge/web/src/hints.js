// Tooltips and tours: beside elements of the page, wherever these move.

import { autoUpdate, computePosition, flip, offset, shift } from "@floating-ui/dom";

import { button, content, hostOf } from "./parts.js";

/** Show a tooltip beside an element, or the steps of a tour one after the other; return what takes it down. */
export function walk(kind, element, value, clicked) {
  const steps = (value.steps || []).map((step) => ({ ...step, anchor: anchorOf(step.element) })).filter(hasAnchor);
  if (kind === "tooltip" || !steps.length) return place(kind, element, (close) => content(value, clicked, close), value.copy);
  let close = () => {};
  const go = (nth) => {
    close();
    const { anchor, copy } = steps[nth];
    const isLast = nth === steps.length - 1;
    const parts = (end) => {
      const text = document.createElement("p");
      text.textContent = copy;
      const next = button(`${nth + 1} / ${steps.length} \u2192`, "Next", () => go(nth + 1));
      return isLast ? [text, ...content(value, clicked, end)] : [text, next, button("\u00d7", "Close", end)];
    };
    close = place(kind, anchor, parts, copy);
  };
  go(0);
  return () => close();
}

const anchorOf = (name) => document.querySelector(`[data-upnext-element="${CSS.escape(name)}"]`);
const hasAnchor = ({ anchor }) => anchor;

function place(kind, anchor, parts, label) {
  const host = hostOf(kind);
  host.setAttribute("role", "dialog");
  host.setAttribute("aria-label", label);
  const before = document.activeElement;
  const move = () =>
    computePosition(anchor, host, {
      strategy: "fixed",
      middleware: [offset(8), flip(), shift({ padding: 8 })],
    }).then(({ x, y }) => Object.assign(host.style, { left: `${x}px`, top: `${y}px` }));
  const escape = (event) => event.key === "Escape" && close();
  const close = () => {
    stop();
    document.removeEventListener("keydown", escape, true);
    // Whoever was inside goes back to where they were.
    if (host.contains(document.activeElement) && before) before.focus();
    host.remove();
  };
  host.shadowRoot.append(...parts(close));
  document.body.append(host);
  const stop = autoUpdate(anchor, host, move);
  document.addEventListener("keydown", escape, true);
  if (kind === "tour") host.shadowRoot.querySelector("button,a").focus({ preventScroll: false });
  return close;
}
