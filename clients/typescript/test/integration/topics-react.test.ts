import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { describe, expect, test } from "vitest";
import { hasChromium, openChromium } from "../support/browser.ts";
import { closeBehindEach, hubOf, numbers, opened, topicsOf } from "../support/topics.ts";

closeBehindEach();

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

interface InPage {
  setTopic(topic: string | undefined): void;
  renders(): number;
  subscriptions(): number;
}

describe.runIf(hasChromium)("in Chromium", () => {
  test("a component shows what a topic delivers, changes its topic, and ends its subscription", async () => {
    const hub = await hubOf();
    const topics = topicsOf(hub.url);
    const chromium = await openChromium();
    opened.push(() => chromium.close());
    const page = await chromium.newPage();
    const bundle = await build({
      entryPoints: [`${ROOT}/test/support/react-page.js`],
      bundle: true,
      write: false,
      define: { "process.env.NODE_ENV": '"development"' },
    });
    const url = await chromium.sameOrigin(hub.url);
    await topics.publishMany(numbers(1_000).map((data) => ({ topic: "one", data })));
    await page.evaluate((url) => Object.assign(globalThis, { url }), url);
    await page.addScriptTag({ content: bundle.outputFiles[0]!.text });
    const shows = (words: string) =>
      page.waitForFunction((words) => document.querySelector("#sum")?.textContent === words, words);
    await shows("one 500500 open");
    // What arrives together is one render.
    expect(await page.evaluate(() => (globalThis as unknown as InPage).renders())).toBeLessThan(100);
    await topics.publish("one", "1", { final: true });
    await shows("one 500501 ended");
    await topics.publish("two", "7");
    await page.evaluate(() => (globalThis as unknown as InPage).setTopic("two"));
    await shows("two 7 open");
    await topics.publish("two", "bad");
    await shows("two 7 failed options");
    await page.evaluate(() => (globalThis as unknown as InPage).setTopic("three"));
    await shows("three 0 open");
    const subscriptions = () => page.evaluate(() => (globalThis as unknown as InPage).subscriptions());
    expect(await subscriptions()).toBe(1);
    await page.evaluate(() => (globalThis as unknown as InPage).setTopic(undefined));
    await page.waitForFunction(() => (globalThis as unknown as InPage).subscriptions() === 0);
  });
});
