// The same as topics.mjs, with a page in Chromium as the client. See chromium.mjs for which one.

import { openChromium } from "./chromium.mjs";

const urls = process.argv[2]?.split(",");
if (!urls) {
  console.error("usage: topics-chromium.mjs URL[,URL...]");
  process.exit(2);
}

const chromium = await openChromium();
try {
  const nodes = await Promise.all(urls.map((url) => chromium.sameOrigin(url)));
  const page = await chromium.newPage();
  const count = await page.evaluate(async (nodes) => {
    const { Topics } = globalThis.unstall;
    const { relayed } = await import("/proof/relayed.mjs");
    const topics = new Topics(nodes, { reconnect: { max: 1_000 } });
    const count = await relayed(topics);
    await topics.close();
    return count;
  }, nodes);
  console.error(`${count} messages went through`);
} catch (error) {
  console.error(`topics-chromium.mjs: ${error.message}`);
  process.exitCode = error.message.includes("GapFound") ? 1 : 2;
} finally {
  await chromium.close();
}
