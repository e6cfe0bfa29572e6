// OpenFeature's provider for Node as it is: node decide.mjs <edge> <key>
import { OFREPProvider } from "@openfeature/ofrep-provider";
import { OpenFeature } from "@openfeature/server-sdk";

const [baseUrl, key] = process.argv.slice(2);
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl, headers: [["Authorization", `Bearer ${key}`]] }));
const client = OpenFeature.getClient();
const found = {};
for (const user of ["ann", "bob", "nobody"]) {
  const { value, variant, reason, errorCode } = await client.getObjectDetails(
    "web.homepage_banner", {}, { targetingKey: user },
  );
  found[user] = { copy: value.copy, variant, reason, errorCode };
}
const unknown = await client.getObjectDetails("web.nowhere", { given: 1 }, { targetingKey: "ann" });
found.unknown = { value: unknown.value, errorCode: unknown.errorCode };
console.log(JSON.stringify(found));
await OpenFeature.close();
