// What Otto itself tells of its users, as any product would. The script of the edge does the rest.
const { edge, key, user } = document.currentScript.dataset;
const told = document.getElementById("told");

function track(event) {
  const body = { writeKey: key, event, messageId: crypto.randomUUID(), timestamp: new Date().toISOString() };
  if (user) body.userId = user;
  else body.anonymousId = (localStorage.getItem("ajs_anonymous_id") || "").replaceAll('"', "") || "nobody";
  navigator.sendBeacon(`${edge}/v1/track`, JSON.stringify(body));
  told.textContent = `Told: ${event}.`;
  for (const seconds of [2, 4, 8]) setTimeout(() => window.upnext?.refresh(), seconds * 1000);
}

for (const button of document.querySelectorAll("[data-event]")) {
  button.addEventListener("click", () => track(button.dataset.event));
}
const viewed = document.querySelector("[data-view]");
if (viewed) track(viewed.dataset.view);
