// The parts that calls to action are made of. Each is in a shadow root of its own, so that neither the page's styles nor
// ours reach the other. Copy is text and never HTML.

import css from "./slots.css";

/** Return an element with a shadow root that looks as its kind does. */
export function hostOf(kind) {
  const host = document.createElement("upnext-cta");
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  host.attachShadow({ mode: "open" }).adoptedStyleSheets = [sheet];
  host.setAttribute("kind", kind || "banner");
  return host;
}

/** Return a call to action's link, and the button that closes it where it can be closed. */
export function content({ copy, url }, clicked, closed) {
  const link = document.createElement("a");
  link.textContent = copy;
  link.href = safe(url);
  link.addEventListener("click", clicked);
  // The middle button opens another tab.
  link.addEventListener("auxclick", (event) => event.button === 1 && clicked());
  return closed ? [link, button("\u00d7", "Close", closed)] : [link];
}

export function button(text, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

function safe(url) {
  try {
    const parsed = new URL(url || "#", location.href);
    return /^https?:$/.test(parsed.protocol) ? parsed.href : "#";
  } catch {
    return "#";
  }
}
