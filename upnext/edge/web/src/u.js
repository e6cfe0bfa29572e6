// What a page loads: it asks which calls to action the user sees, shows them when their triggers fire, and reports what
// was seen and clicked. Whatever fails, the page goes on as if the script was not there.

import { beacon, evaluate } from "./edge.js";
import { show } from "./show.js";
import { anonymousId } from "./storage.js";
import { arm } from "./triggers.js";

// A module has no current script.
const script = document.currentScript || document.querySelector('script[data-key][src*="/js/u.js"]');
const { key, user, token, surface = "web" } = script ? script.dataset : {};
const settings = { base: script && script.src.replace(/\/js\/u\.js.*$/, ""), key, user, token, surface };

let stop = () => {};
let shown = [];
let look = 0;

/** Take down what is shown and what waits, ask again, and arm the triggers of what the user may see now. */
async function refresh() {
  if (!settings.key) return;
  const current = ++look;
  stop();
  for (const remove of shown.splice(0)) remove();
  const flags = await evaluate(settings, settings.user || `visitor:${anonymousId()}`);
  if (current !== look) return;
  const stops = [];
  stop = () => stops.forEach((one) => one());
  flags.forEach(
    safely(({ key, value, metadata }) => {
      const [surface, slot] = key.split(".");
      if (surface !== settings.surface || !value.source) return;
      stops.push(arm(value.trigger, safely(() => offer(slot, value, metadata))));
    }),
  );
}

/** Report a call to action as viewed and show it; for control nothing is shown, and it is reported alike. */
function offer(slot, value, metadata) {
  const what = value.source_kind === "experience" ? "experience" : "offer";
  const report = safely((did) =>
    beacon(settings, `${what} ${did}`, { [what]: value.source, variant: value.variant, slot }),
  );
  // Even if it cannot be shown: what is reported may not depend on the arm.
  report("viewed");
  if (value.copy) shown.push(show(slot, metadata.kind, value, () => report("clicked"), settings.base));
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
    settings.user = user;
    settings.token = token;
    return refresh();
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
safely(refresh)();
