// Talking to the edge, without a preflight: text/plain, and the key within the body.

import { anonymousId } from "./storage.js";

/** Return what the user sees, as flags; null where the edge is away or refuses. */
export async function evaluate(settings, user) {
  const context = { targetingKey: user, writeKey: settings.key, upnextToken: settings.token };
  try {
    const answer = await fetch(`${settings.base}/ofrep/v1/evaluate/flags`, {
      method: "POST",
      headers: { "Content-Type": "text/plain" },
      body: JSON.stringify({ context }),
    });
    return answer.ok ? (await answer.json()).flags : null;
  } catch {
    return null;
  }
}

/** Send an event in a way that survives a navigation. */
export function beacon(settings, event, properties) {
  const body = JSON.stringify({
    writeKey: settings.key,
    event,
    properties,
    userId: settings.user,
    anonymousId: anonymousId(),
    context: settings.consent && { consent: { categoryPreferences: settings.consent } },
    messageId: `upnext-${Date.now()}-${Math.random().toString(36).slice(2)}`,
    timestamp: new Date().toISOString(),
    sentAt: new Date().toISOString(),
  });
  const address = `${settings.base}/v1/track`;
  if (!navigator.sendBeacon(address, body)) fetch(address, { method: "POST", body, keepalive: true }).catch(() => {});
}
