import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Page } from "playwright-core";
import { beforeAll, describe, expect, test } from "vitest";
import { hasChromium, openChromium } from "../support/browser.ts";
import { FaultProxy, seeded } from "../support/proxy.ts";
import { closeBehindEach, directory, hubOf, numbers, opened, topicsOf } from "../support/topics.ts";

closeBehindEach();

/** What the page has. */
interface InPage {
  unstall: typeof import("../../src/index.ts");
  take(count: number): Promise<unknown>;
  waiting(): number;
}

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

beforeAll(async () => {
  await promisify(execFile)("npm", ["run", "--silent", "build"], { cwd: ROOT });
});

async function chromium() {
  const chromium = await openChromium();
  opened.push(() => chromium.close());
  return chromium;
}

/** What the page's objects and strings take, behind a collection. */
async function heapOf(page: Page): Promise<number> {
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  await session.detach();
  return usedSize;
}

describe.runIf(hasChromium)("in Chromium", () => {
  test("every message comes once and in order, with a hub that is killed and connections that are cut", async () => {
    const hub = await hubOf("--store", await directory());
    const proxy = await FaultProxy.start(hub.port);
    opened.push(() => proxy.stop());
    const random = seeded(11);
    proxy.nextLimit = () => 100_000 + Math.floor(random() * 500_000);
    const browser = await chromium();
    const page = await browser.newPage();
    const url = await browser.sameOrigin(`${proxy.url}/topics`);
    const topics = topicsOf(hub.url);
    const count = 20_000;
    const reading = page.evaluate(async (url) => {
      const { Topics } = (globalThis as unknown as InPage).unstall;
      const topics = new Topics(url, { reconnect: { first: 20, max: 100 } });
      let expected = 1;
      for await (const delivery of topics.subscribe("t", { window: 262_144 })) {
        if (delivery.type !== "message" || `${delivery.data}`.trimEnd() !== `${expected}`)
          return { wrong: JSON.stringify(delivery), expected };
        expected++;
      }
      return { read: expected - 1, connections: topics.stats.connections };
    }, url);
    for (let round = 0; round < 4; round++) {
      const batch = numbers(count / 4, (round * count) / 4 + 1);
      const publications = batch.map((data) => ({
        topic: "t",
        data: data.padEnd(100),
        final: data === `${count}`,
      }));
      const stored = topics.publishMany(publications);
      await hub.kill();
      await hub.start();
      await stored;
    }
    const { read, connections } = (await reading) as { read: number; connections: number };
    expect(read).toBe(count);
    expect(connections).toBeGreaterThan(4);
  });

  test("100,000 messages reach a page that stops and goes, and its memory stays within the window", async () => {
    const hub = await hubOf("--max-bytes", "200000000");
    const topics = topicsOf(hub.url);
    const count = 100_000;
    const size = 500;
    const data = (number: string) => number.padEnd(size);
    await topics.publishMany(numbers(count).map((number) => ({ topic: "t", data: data(number) })));
    await topics.publish("t", "end", { final: true });
    const browser = await chromium();
    const page = await browser.newPage();
    const url = await browser.sameOrigin(hub.url);
    const before = await heapOf(page);
    await page.evaluate((url) => {
      const page = globalThis as unknown as InPage;
      const { Topics } = page.unstall;
      const subscription = new Topics(url).subscribe("t");
      let expected = 1;
      page.take = async (count) => {
        for (let taken = 0; taken < count; taken++) {
          const { value } = await subscription.next();
          const text = value?.type === "message" ? `${value.data}`.trimEnd() : value?.type;
          if (text !== `${expected}`) return `expected ${expected}, and got ${text}`;
          expected++;
        }
        return expected - 1;
      };
      page.waiting = () => subscription.stats.waitingBytes;
    }, url);
    const window = 1 << 20;
    let most = 0;
    for (let taken = 0; taken < count; ) {
      taken += count / 10;
      expect(
        await page.evaluate((step) => (globalThis as unknown as InPage).take(step), count / 10),
      ).toBe(taken);
      // It stops, and whatever the node may send has arrived.
      await page.waitForTimeout(200);
      expect(await page.evaluate(() => (globalThis as unknown as InPage).waiting())).toBeLessThanOrEqual(
        window,
      );
      most = Math.max(most, (await heapOf(page)) - before);
    }
    // The log has 50 MB. The page has what waits, and what each message takes beside its text.
    expect(most).toBeLessThan(6 * window);
  });

  test("a page that is reloaded goes on from its saved position, with what it knew there", async () => {
    const hub = await hubOf();
    const topics = topicsOf(hub.url);
    const browser = await chromium();
    const page = await browser.newPage();
    const url = await browser.sameOrigin(hub.url);
    const count = 2_000;
    const stored = topics.publishMany(
      numbers(count).map((data) => ({ topic: "t", data, final: data === `${count}` })),
    );
    const visit = () =>
      page.evaluate(async (url) => {
        const { savedPosition, Topics } = (globalThis as unknown as InPage).unstall;
        const saved = savedPosition<number>("t");
        let sum = saved.state ?? 0;
        let taken = 0;
        for await (const delivery of new Topics(url).subscribe("t", { after: saved.after })) {
          if (delivery.type !== "message") return delivery.type;
          sum += Number(delivery.data);
          saved.save(delivery, sum);
          if (++taken === 600) return "more";
        }
        return { sum, taken };
      }, url);
    for (let at = 0; at < 3; at++) {
      expect(await visit()).toBe("more");
      await page.reload();
      await page.waitForFunction("globalThis.unstall");
    }
    await stored;
    expect(await visit()).toEqual({ sum: (count * (count + 1)) / 2, taken: 200 });
  });
});
