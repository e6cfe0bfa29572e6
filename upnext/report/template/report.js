// Filters by time and segment, and the charts. Everything else of the page is there without this.

(() => {
  "use strict";
  // Names come from people: without a prototype, none is one that every object has.
  const bare = (_, value) =>
    value && typeof value === "object" && !Array.isArray(value) ? Object.assign(Object.create(null), value) : value;
  const read = (id) => JSON.parse(document.getElementById(id).textContent, bare);
  const data = read("data");
  const specs = read("charts");
  const days = document.getElementById("days");
  const segment = document.getElementById("segment");
  const DAY = 86400000;
  const NARROW = 480;

  const chosen = () => ({ since: data.today - Number(days.value), segment: segment.value });
  const after = (rows, since) => (rows || []).filter(([day]) => day > since);
  const at = (day) => day * DAY;

  // Rows of each chart, by what is chosen and by what the chart is about.
  const rows = {
    members: ({ since, segment }) =>
      (segment ? [segment] : data.largest).flatMap((name) =>
        after(data.members[name], since).map(([day, members]) => ({ day: at(day), segment: name, members })),
      ),
    flows: ({ since, segment }) => {
      const sums = new Map();
      for (const [name, found] of Object.entries(data.members)) {
        if (segment && name !== segment) continue;
        for (const [day, , entered, left] of after(found, since)) {
          const sum = sums.get(day) || [0, 0];
          sums.set(day, [sum[0] + entered, sum[1] + left]);
        }
      }
      return [...sums].flatMap(([day, [entered, left]]) => [
        { day: at(day), change: "entered", users: entered, shown: entered },
        { day: at(day), change: "left", users: -left, shown: left },
      ]);
    },
    overlaps: () => data.overlaps,
    forest: ({ segment }) => data.forest.filter((row) => !segment || row.segment === segment),
    lift: ({ since }, key) =>
      Object.entries(data.lifts[key] || {}).flatMap(([arm, looks]) =>
        after(looks, since).map(([day, lift, low, high]) => ({ day: at(day), arm, lift, low, high })),
      ),
    journey: ({ since }, key) =>
      Object.entries(data.journeys[key] || {}).flatMap(([what, counts]) =>
        after(counts, since).map(([day, count]) => ({ day: at(day), what, count })),
      ),
  };

  const drawn = new Map();

  async function draw(place) {
    if (drawn.has(place)) return drawn.get(place);
    const { chart, key } = place.dataset;
    const found = rows[chart](chosen(), key);
    if (!found.length) {
      place.textContent = "Nothing in this time.";
      return null;
    }
    place.textContent = "";
    const spec = structuredClone({ ...specs[chart], datasets: { ...specs[chart].datasets, rows: found } });
    spec.config.legend.columns = place.clientWidth < NARROW ? 1 : 2;
    if (chart === "lift") spec.layer = within(spec.layer, found);
    const made = vegaEmbed(place, spec, { actions: false, ast: true, renderer: "svg", defaultStyle: false, logLevel: 1 });
    drawn.set(place, made);
    await made;
    // The chart's label stands around it.
    place.querySelector("svg").setAttribute("aria-hidden", "true");
    return made;
  }

  // The first looks have very wide intervals, which would leave no room for the rest.
  function within(layers, found) {
    const ends = found.filter((row) => row.low !== null && row.high !== null).slice(-8);
    if (!ends.length) return layers;
    const low = Math.min(-10, ...ends.map((row) => row.low)) * 1.3;
    const high = Math.max(10, ...ends.map((row) => row.high)) * 1.3;
    return layers.map((layer) =>
      layer.encoding.y && layer.encoding.y.field
        ? { ...layer, encoding: { ...layer.encoding, y: { ...layer.encoding.y, scale: { domain: [low, high] } } } }
        : layer,
    );
  }

  async function redraw(place) {
    const made = await (drawn.get(place) || null);
    if (made) made.finalize();
    drawn.delete(place);
    return draw(place);
  }

  function sums() {
    const { since } = chosen();
    for (const cell of document.querySelectorAll("[data-sum]")) {
      const column = cell.dataset.sum === "entered" ? 2 : 3;
      const found = after(data.members[cell.dataset.key], since);
      cell.textContent = found.reduce((sum, row) => sum + row[column], 0).toLocaleString("en");
    }
  }

  function filter() {
    const { segment } = chosen();
    for (const one of document.querySelectorAll("[data-segment]")) {
      one.hidden = Boolean(segment) && one.dataset.segment !== segment;
    }
    for (const section of document.querySelectorAll("section:has(article)")) {
      section.classList.toggle("none", !section.querySelector("article:not([hidden])"));
    }
    sums();
    const time = days.options[days.selectedIndex].text;
    const note = document.getElementById("filtered");
    note.hidden = !segment && days.value === days.dataset.first;
    note.textContent =
      `Charts, and who entered and left, are of the last ${time}` +
      (segment ? `; chapters show what is for ${segment}` : "") +
      ". All other numbers are since the beginning.";
  }

  const places = [...document.querySelectorAll(".chart")];
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      draw(target);
    }
  });

  // What is off the screen is drawn one by one, so that it is there on paper, and clicks are heard in between.
  async function rest() {
    for (const place of places) {
      await new Promise((go) => setTimeout(go));
      await draw(place);
    }
    document.documentElement.dataset.drawn = "all";
  }

  document.querySelector(".filters").addEventListener("change", () => {
    filter();
    for (const place of places) if (!place.closest("[hidden]")) redraw(place);
  });
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  filter();
  for (const place of places) seen.observe(place);
  rest();
})();
