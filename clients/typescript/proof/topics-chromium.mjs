// The same as topics.mjs, with a page in Chromium as the client. UNSTALL_CHROMIUM is the browser, by default
// /usr/bin/chromium.

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
    const { Topics } = await import("/dist/index.js");
    const { relayed } = await import("/proof/relayed.mjs");
    const topics = new Topics(nodes);
    const count = await relayed(topics);
    await topics.close();
    return count;
  }, nodes);
  console.error(`${count} messages went through`);
} catch (error) {
  console.error(`topics-chromium.mjs: ${error.message}`);
  process.exitCode = 1;
} finally {
  await chromium.close();
}
