// When a call to action is shown. Each trigger returns what takes it back.

import { session } from "./storage.js";

const HOVERED_FOR = 300;

/** Call `fire` once, when a trigger has happened as often in this session as it asks for, to the user of the scope. */
export function arm(trigger, fire, scope) {
  if (!trigger) {
    fire();
    return () => {};
  }
  let stop = () => {};
  let isOver = false;
  const happened = () => {
    if (isOver) return;
    const name = `upnext:${scope}:${JSON.stringify(trigger)}`;
    const times = Number(session.get(name) || 0) + 1;
    session.set(name, String(times));
    if (times < (trigger.times_in_session || 1)) return;
    isOver = true;
    stop();
    fire();
  };
  stop = (KINDS[trigger.when] || nothing)(trigger, happened, scope);
  if (isOver) stop();
  return () => {
    isOver = true;
    stop();
  };
}

const nothing = () => () => {};

const KINDS = {
  page_view: ({ page }, happened) => {
    if (isOn(page)) happened();
    return () => {};
  },
  feature_used: ({ feature }, happened) => {
    const off = [
      on("click", (event) => closest(event, "feature", feature) && happened()),
      on("upnext:used", (event) => event.detail === feature && happened()),
    ];
    return () => off.forEach((one) => one());
  },
  feature_hovered: ({ feature }, happened) => {
    let timer;
    // A pointer that goes from child to child stays on the feature.
    const isWithin = (event) => {
      const element = closest(event, "feature", feature);
      return element && !element.contains(event.relatedTarget);
    };
    const enter = (event) => {
      if (!isWithin(event)) return;
      clearTimeout(timer);
      timer = setTimeout(happened, HOVERED_FOR);
    };
    const leave = (event) => isWithin(event) && clearTimeout(timer);
    const off = [on("pointerover", enter), on("focusin", enter), on("pointerout", leave), on("focusout", leave)];
    return () => {
      clearTimeout(timer);
      off.forEach((one) => one());
    };
  },
  click: ({ element }, happened) => on("click", (event) => closest(event, "element", element) && happened()),
  time_on_page: ({ page, seconds }, happened) => {
    if (!isOn(page)) return () => {};
    let visible = 0;
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") visible += 1;
      if (visible >= seconds) happened();
    }, 1000);
    return () => clearInterval(timer);
  },
  scroll_depth: ({ page, percent }, happened) => {
    if (!isOn(page)) return () => {};
    return on("scroll", ({ target }) => {
      const { scrollTop, clientHeight, scrollHeight } = target instanceof Element ? target : document.documentElement;
      // A list within the page is not the page.
      if (clientHeight * 2 < innerHeight) return;
      if ((scrollTop + clientHeight) * 100 >= scrollHeight * percent) happened();
    });
  },
  inactivity: ({ seconds }, happened) => {
    let timer;
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(() => (document.visibilityState === "visible" ? happened() : wait()), seconds * 1000);
    };
    const off = ["pointermove", "pointerdown", "keydown", "scroll"].map((name) => on(name, wait));
    wait();
    return () => {
      clearTimeout(timer);
      off.forEach((one) => one());
    };
  },
};

KINDS.sequence = ({ steps }, happened, scope) => {
  const stops = [];
  const wait = (nth) => {
    if (nth === steps.length) happened();
    else stops.push(arm(steps[nth], () => wait(nth + 1), `${scope}:${nth}`));
  };
  wait(0);
  return () => stops.forEach((one) => one());
};

/** Whether a trigger asks for a page, so that what it shows belongs to it. */
export function isOfPage(trigger) {
  return Boolean(trigger && (trigger.page || (trigger.steps || []).some(isOfPage)));
}

function isOn(page) {
  if (!page) return true;
  const path = plain(location.pathname);
  return page.endsWith("*") ? `${path}/`.startsWith(page.slice(0, -1)) : path === plain(page);
}

/** Return a path as people write it: decoded, without a slash at the end. */
function plain(path) {
  let decoded = path;
  try {
    decoded = decodeURI(path);
  } catch {
    // Not UTF-8: as it is.
  }
  return decoded.replace(/(.)\/$/, "$1");
}

function closest(event, kind, name) {
  return event.target instanceof Element && event.target.closest(`[data-upnext-${kind}="${CSS.escape(name)}"]`);
}

function on(name, listener) {
  const options = { capture: true, passive: true };
  document.addEventListener(name, listener, options);
  return () => document.removeEventListener(name, listener, options);
}
