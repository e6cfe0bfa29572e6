// When a call to action is shown. Each trigger returns what takes it back.

import { session } from "./storage.js";

const HOVERED_FOR = 300;

/** Call `fire` once, when a trigger has happened as often in this session as it asks for. */
export function arm(trigger, fire) {
  if (!trigger) {
    fire();
    return () => {};
  }
  let stop = () => {};
  let isOver = false;
  const happened = () => {
    if (isOver) return;
    const name = `upnext:${JSON.stringify(trigger)}`;
    const times = Number(session.get(name) || 0) + 1;
    session.set(name, String(times));
    if (times < (trigger.times_in_session || 1)) return;
    isOver = true;
    stop();
    fire();
  };
  stop = (KINDS[trigger.when] || nothing)(trigger, happened);
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
    const enter = (event) => {
      if (!closest(event, "feature", feature)) return;
      clearTimeout(timer);
      timer = setTimeout(happened, HOVERED_FOR);
    };
    const leave = (event) => closest(event, "feature", feature) && clearTimeout(timer);
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
    return on("scroll", () => {
      const { scrollTop, clientHeight, scrollHeight } = document.documentElement;
      if ((scrollTop + clientHeight) * 100 >= scrollHeight * percent) happened();
    });
  },
  inactivity: ({ seconds }, happened) => {
    let timer;
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(happened, seconds * 1000);
    };
    const off = ["pointermove", "pointerdown", "keydown", "scroll"].map((name) => on(name, wait));
    wait();
    return () => {
      clearTimeout(timer);
      off.forEach((one) => one());
    };
  },
};

KINDS.sequence = ({ steps }, happened) => {
  const stops = [];
  const wait = (nth) => {
    if (nth === steps.length) happened();
    else stops.push(arm(steps[nth], () => wait(nth + 1)));
  };
  wait(0);
  return () => stops.forEach((one) => one());
};

function isOn(page) {
  if (!page) return true;
  return page.endsWith("*") ? location.pathname.startsWith(page.slice(0, -1)) : location.pathname === page;
}

function closest(event, kind, name) {
  return event.target instanceof Element && event.target.closest(`[data-upnext-${kind}="${CSS.escape(name)}"]`);
}

function on(name, listener) {
  const options = { capture: true, passive: true };
  document.addEventListener(name, listener, options);
  return () => document.removeEventListener(name, listener, options);
}
