// Talking to the edge, without a preflight: text/plain, and the key within the body.

import { anonymousId } from "./storage.js";

/** Return what the user sees, as flags; none where the edge is away or refuses. */
export async function evaluate(settings, user) {
  const context = { targetingKey: user, writeKey: settings.key, upnextToken: settings.token };
  try {
    const answer = await fetch(`${settings.base}/ofrep/v1/evaluate/flags`, {
      method: "POST",
      headers: { "Content-Type": "text/plain" },
      body: JSON.stringify({ context }),
    });
    return answer.ok ? (await answer.json()).flags : [];
  } catch {
    return [];
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
    messageId: `upnext-${Date.now()}-${Math.random().toString(36).slice(2)}`,
    timestamp: new Date().toISOString(),
    sentAt: new Date().toISOString(),
  });
  navigator.sendBeacon(`${settings.base}/v1/track`, body);
}
