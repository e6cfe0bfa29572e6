// How a call to action is shown: in its slot, over the page, or beside elements of the page.

import { content, hostOf } from "./parts.js";

// A page that takes our element out again and again wants it gone.
const MOST_PLACED = 20;

/** Show a call to action, now or when its slot appears; return what takes it down. `base` is where the edge is.
 * `closed` is called when the user closes it. */
export function show(slot, kind, value, clicked, base, closed) {
  if (kind === "modal") return modal(slot, value, clicked, closed);
  if (kind === "tooltip" || kind === "tour") return hint(slot, kind, value, clicked, base);
  let host;
  let placed = 0;
  const remove = whenever(slot, (element, stop) => {
    if (host && host.parentNode === element) return;
    if (host) host.remove();
    if (++placed > MOST_PLACED) return stop();
    host = hostOf(kind);
    host.shadowRoot.append(...content(value, clicked, kind === "button" ? null : () => {
        closed();
        close();
      }));
    element.append(host);
  });
  const close = () => {
    remove();
    if (host) host.remove();
  };
  return close;
}

/** Call `found` with the element of a slot, now and whenever the page changes; return what ends that. */
function whenever(slot, found) {
  const look = () => {
    const element = document.querySelector(`[data-upnext-slot="${CSS.escape(slot)}"]`);
    if (element) found(element, stop);
  };
  const observer = new MutationObserver(look);
  const stop = () => observer.disconnect();
  observer.observe(document.documentElement, { childList: true, subtree: true });
  look();
  return stop;
}

function modal(slot, value, clicked, closed) {
  const host = hostOf("modal");
  host.dataset.slot = slot;
  const dialog = document.createElement("dialog");
  const remove = () => host.remove();
  dialog.setAttribute("aria-label", value.copy);
  dialog.append(...content(value, clicked, () => dialog.close()));
  dialog.addEventListener("close", () => {
    remove();
    closed();
  });
  host.shadowRoot.append(dialog);
  document.body.append(host);
  dialog.showModal();
  return remove;
}

/** Show a tooltip beside its slot, or a tour beside elements of the page; few pages need what places them. */
function hint(slot, kind, value, clicked, base) {
  let isBegun = false;
  let isGone = false;
  let close = () => {};
  const end = whenever(slot, (element, stop) => {
    stop();
    if (isBegun) return;
    isBegun = true;
    import(`${base}/js/${HINTS}`)
      .then(({ walk }) => {
        if (!isGone) close = walk(kind, element, value, clicked);
      })
      .catch(() => {});
  });
  return () => {
    isGone = true;
    end();
    close();
  };
}
