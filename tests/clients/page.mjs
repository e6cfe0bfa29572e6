// A page that knows nothing of Upnext: Segment's client and OpenFeature's provider for browsers, as they are.
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";
import { OpenFeature } from "@openfeature/web-sdk";
import { AnalyticsBrowser } from "@segment/analytics-next";

window.begin = async ({ edge, key, user, token }) => {
  window.analytics = AnalyticsBrowser.load({ cdnURL: edge, writeKey: key });
  window.analytics.identify(user);
  const headers = [["X-Write-Key", key], ["X-Upnext-Token", token]];
  const provider = new OFREPWebProvider({ baseUrl: edge, pollInterval: 300, headers });
  await OpenFeature.setContext({ targetingKey: user });
  await OpenFeature.setProviderAndWait(provider);
};
window.look = (flag) => OpenFeature.getClient().getObjectDetails(flag, { given: 1 });
