// Segment's client for Node as it is: node send.mjs <edge> <key>
import { Analytics } from "@segment/analytics-node";

const [host, writeKey] = process.argv.slice(2);
const analytics = new Analytics({ host, writeKey, path: "/v1/batch" });
analytics.on("error", (error) => console.error(error));
analytics.identify({ userId: "ann", traits: { plan: "basic" } });
for (let number = 0; number < 50; number++) analytics.track({ userId: "ann", event: "login", properties: { number } });
analytics.page({ userId: "ann", name: "Pricing" });
analytics.alias({ userId: "ann", previousId: "old" });
analytics.group({ userId: "ann", groupId: "acme" });
await analytics.closeAndFlush();
