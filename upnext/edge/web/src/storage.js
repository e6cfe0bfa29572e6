// What a browser remembers. It may refuse to: then a page remembers for itself.

const memory = {};

function store(kind) {
  return {
    get(name) {
      try {
        return window[kind].getItem(name) ?? memory[name];
      } catch {
        return memory[name];
      }
    },
    set(name, value) {
      memory[name] = value;
      try {
        window[kind].setItem(name, value);
      } catch {
        // Blocked, or full.
      }
    },
  };
}

export const session = store("sessionStorage");
const local = store("localStorage");

/** Return the id of this visitor: Segment's own where its client is there too. */
export function anonymousId() {
  let id = local.get("ajs_anonymous_id");
  if (!id) {
    id = JSON.stringify(crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`);
    local.set("ajs_anonymous_id", id);
  }
  return id.replace(/^"|"$/g, "");
}
