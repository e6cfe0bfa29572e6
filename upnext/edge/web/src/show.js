// How a call to action looks. Each is in a shadow root of its own, so that neither the page's styles nor ours reach the
// other. Copy is text and never HTML.

import { css } from "./style.js";

// A page that takes our element out again and again wants it gone.
const MOST_PLACED = 20;

/** Show a call to action in its slot, now or when the slot appears; return what takes it down. */
export function show(slot, kind, value, clicked) {
  if (kind === "modal") return modal(slot, value, clicked);
  let host;
  let placed = 0;
  const place = () => {
    const element = document.querySelector(`[data-upnext-slot="${CSS.escape(slot)}"]`);
    if (!element || (host && host.parentNode === element)) return;
    if (host) host.remove();
    if (++placed > MOST_PLACED) return observer.disconnect();
    host = document.createElement("upnext-cta");
    const root = rootOf(host, kind);
    root.append(...content(value, clicked, kind === "button" ? null : () => remove()));
    element.append(host);
  };
  const observer = new MutationObserver(place);
  const remove = () => {
    observer.disconnect();
    if (host) host.remove();
  };
  observer.observe(document.documentElement, { childList: true, subtree: true });
  place();
  return remove;
}

function modal(slot, value, clicked) {
  const host = document.createElement("upnext-cta");
  host.dataset.slot = slot;
  const root = rootOf(host, "modal");
  const dialog = document.createElement("dialog");
  const remove = () => host.remove();
  dialog.setAttribute("aria-label", value.copy);
  dialog.append(...content(value, clicked, () => dialog.close()));
  dialog.addEventListener("close", remove);
  root.append(dialog);
  document.body.append(host);
  dialog.showModal();
  return remove;
}

function rootOf(host, kind) {
  const root = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  root.adoptedStyleSheets = [sheet];
  host.setAttribute("kind", kind || "banner");
  return root;
}

function content({ copy, url }, clicked, closed) {
  const link = document.createElement("a");
  link.textContent = copy;
  link.href = safe(url);
  link.addEventListener("click", clicked);
  if (!closed) return [link];
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "\u00d7";
  close.setAttribute("aria-label", "Close");
  close.addEventListener("click", closed);
  return [link, close];
}

function safe(url) {
  try {
    const parsed = new URL(url || "#", location.href);
    return /^https?:$/.test(parsed.protocol) ? parsed.href : "#";
  } catch {
    return "#";
  }
}
