// What a page loads: it asks which calls to action the user sees, shows them when their triggers fire, and reports what
// was seen and clicked. Whatever fails, the page goes on as if the script was not there.

import { beacon, evaluate } from "./edge.js";
import { show } from "./show.js";
import { anonymousId } from "./storage.js";
import { arm, isOfPage } from "./triggers.js";

// A module has no current script.
const script = document.currentScript || document.querySelector('script[data-key][src*="/js/u.js"]');
const { key, user, token, surface = "web", consent } = script ? script.dataset : {};
const settings = { base: script && script.src.replace(/\/js\/u\.js.*$/, ""), key, user, token, surface };
safely(() => (settings.consent = consent && JSON.parse(consent)))();

// What waits for its trigger or is shown, by flag.
const offers = new Map();
const LONGEST_TIMER = 2 ** 31 - 1;
let look = 0;

/** Ask again, and begin or end what has changed; where the edge does not answer, all stays. */
async function refresh() {
  if (!settings.key) return;
  const current = ++look;
  const flags = await evaluate(settings, settings.user || `visitor:${anonymousId()}`);
  if (current !== look || !flags) return;
  const ours = flags.filter(({ key, value }) => key.split(".")[0] === settings.surface && value.source);
  const said = new Map(ours.map((flag) => [flag.key, JSON.stringify(flag.value)]));
  offers.forEach((one, key) => one.said !== said.get(key) && end(key));
  ours.forEach(safely((flag) => offers.has(flag.key) || begin(flag, said.get(flag.key))));
}

/** Arm the trigger of what the user may see now, until it is over. */
function begin({ key, value, metadata }, said) {
  const left = value.ends_at ? Date.parse(value.ends_at) - Date.now() : Infinity;
  if (left <= 0) return;
  const one = { said, trigger: value.trigger, isFired: false, isClosed: false, remove() {} };
  const over = left < LONGEST_TIMER ? setTimeout(() => end(key), left) : undefined;
  const scope = `${settings.user || ""}:${value.source}`;
  let disarm;
  one.arm = () => {
    one.isFired = false;
    disarm = arm(value.trigger, safely(() => {
      one.isFired = true;
      one.remove = offer(key.split(".")[1], value, metadata, () => (one.isClosed = true)) || one.remove;
    }), scope);
  };
  one.disarm = () => disarm();
  one.end = () => {
    clearTimeout(over);
    disarm();
    one.remove();
  };
  offers.set(key, one);
  one.arm();
}

function end(key) {
  offers.get(key).end();
  offers.delete(key);
}

/** On another page, what waits begins anew, and what belongs to the page before is taken down. */
function turn() {
  offers.forEach(
    safely((one) => {
      if (one.isClosed || (one.isFired && !isOfPage(one.trigger))) return;
      one.disarm();
      one.remove();
      one.arm();
    }),
  );
}

/** Report a call to action as viewed and show it; for control nothing is shown, and it is reported alike. */
function offer(slot, value, metadata, closed) {
  const what = value.source_kind === "experience" ? "experience" : "offer";
  const report = safely((did) =>
    beacon(settings, `${what} ${did}`, { [what]: value.source, variant: value.variant, slot }),
  );
  // Even if it cannot be shown: what is reported may not depend on the arm.
  report("viewed");
  if (value.copy) return show(slot, metadata.kind, value, () => report("clicked"), settings.base, closed);
}

function safely(work) {
  return (...values) => {
    try {
      const done = work(...values);
      if (done && done.catch) done.catch(() => {});
    } catch {
      // The page is more important than any call to action.
    }
  };
}

window.upnext = {
  /** Say who the user is, with the token that proves it; without a user, it is a visitor again. */
  identify: safely((user, token) => {
    settings.user = user == null ? undefined : String(user);
    settings.token = token;
    [...offers.keys()].forEach(end);
    return refresh();
  }),
  /** Say which categories of storing the user wants, such as {analytics: false}. */
  consent: safely((preferences) => {
    settings.consent = preferences;
  }),
  /** Tell that a feature was used, where no click on an element says so. */
  used: safely((feature) => document.dispatchEvent(new CustomEvent("upnext:used", { detail: feature }))),
  /** Ask again what the user sees. */
  refresh: safely(refresh),
};

let page = location.pathname;
const moved = safely(() => {
  if (location.pathname !== page) {
    page = location.pathname;
    turn();
    return refresh();
  }
});
for (const name of ["pushState", "replaceState"]) {
  const original = history[name];
  history[name] = function (...values) {
    const done = original.apply(this, values);
    moved();
    return done;
  };
}
addEventListener("popstate", moved);
addEventListener("pageshow", safely((event) => event.persisted && refresh()));
if (document.body) safely(refresh)();
else document.addEventListener("DOMContentLoaded", safely(refresh));
