import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { hasChromium, openChromium } from "../support/browser.ts";
import { FaultProxy, seeded } from "../support/proxy.ts";
import { closeBehindEach, directory, hubOf, numbers, opened, topicsOf } from "../support/topics.ts";

closeBehindEach();

/** What the page has. */
interface InPage {
  unstall: typeof import("../../src/index.ts");
  take(count: number): Promise<unknown>;
  waiting(): number;
  topics: import("../../src/index.ts").Topics;
  got: string[];
}

async function chromium(asUsersDo = false) {
  const args = ["--enable-blink-features=ForceEagerMeasureMemory"];
  const chromium = await openChromium({ args, asUsersDo });
  opened.push(() => chromium.close());
  return chromium;
}

/** What the page takes, behind a collection: objects, strings and buffers. */
function memoryOf(page: Page): Promise<number> {
  return page.evaluate(async () => {
    const { performance } = globalThis as unknown as {
      performance: { measureUserAgentSpecificMemory(): Promise<{ bytes: number }> };
    };
    return (await performance.measureUserAgentSpecificMemory()).bytes;
  });
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
    const before = await memoryOf(page);
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
    let mostWaits = 0;
    for (let taken = 0; taken < count; ) {
      taken += count / 10;
      expect(
        await page.evaluate((step) => (globalThis as unknown as InPage).take(step), count / 10),
      ).toBe(taken);
      // It stops, and whatever the node may send has arrived.
      await page.waitForTimeout(200);
      const waits = await page.evaluate(() => (globalThis as unknown as InPage).waiting());
      expect(waits).toBeLessThanOrEqual(window);
      mostWaits = Math.max(mostWaits, waits);
      most = Math.max(most, (await memoryOf(page)) - before);
    }
    expect(mostWaits).toBeGreaterThan(window / 2);
    // The log has 50 MB. The page has what waits, and the objects around it.
    expect(most).toBeGreaterThan(window / 2);
    expect(most).toBeLessThan(4 * window);
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

  /** A page that reads the topic `t` and keeps what it gets, over a proxy. */
  async function reader(options: object = {}, asUsersDo = false) {
    const hub = await hubOf("--store", await directory());
    const proxy = await FaultProxy.start(hub.port);
    opened.push(() => proxy.stop());
    const browser = await chromium(asUsersDo);
    const url = await browser.sameOrigin(`${proxy.url}/topics`);
    const open = async () => {
      const page = await browser.newPage();
      await page.evaluate(
        ([url, options]) => {
          const page = globalThis as unknown as InPage;
          page.topics = new page.unstall.Topics(url, options);
          page.got = [];
          const read = async () => {
            for await (const it of page.topics.subscribe("t"))
              page.got.push(it.type === "message" ? String(it.data) : it.type);
          };
          read().catch((error) => page.got.push(error.code));
        },
        [url, options] as const,
      );
      return page;
    };
    return { open, proxy, topics: topicsOf(hub.url) };
  }

  const got = (page: Page) => page.evaluate(() => (globalThis as unknown as InPage).got);
  const gets = (page: Page, words: string[]) =>
    page.waitForFunction(
      (words) => JSON.stringify((globalThis as unknown as InPage).got) === words,
      JSON.stringify(words),
    );

  test("offline a page waits, and goes on as soon as there is a network again", async () => {
    // The wait between two attempts is much longer than this test.
    const { open, proxy, topics } = await reader({ reconnect: { first: 600_000, max: 600_000 } });
    const page = await open();
    await topics.publish("t", "1");
    await gets(page, ["1"]);
    await page.context().setOffline(true);
    await page.waitForFunction(() => !navigator.onLine);
    proxy.cut();
    await topics.publish("t", "2");
    const stored = page.evaluate(() => (globalThis as unknown as InPage).topics.publish("t", "3"));
    expect(await got(page)).toEqual(["1"]);
    await page.context().setOffline(false);
    await gets(page, ["1", "2", "3"]);
    expect((await stored).offset).toBe(3);
  });

  test("a page enters the back-forward cache without a connection, and goes on when it comes back", async () => {
    const { open, topics } = await reader({}, true);
    const page = await open();
    await topics.publish("t", "1");
    await gets(page, ["1"]);
    await page.goto(`${page.url()}?elsewhere`);
    await topics.publish("t", "2");
    await page.evaluate(() => history.back()).catch(() => {});
    // A page that was loaded again would have got nothing.
    await gets(page, ["1", "2"]);
  });

  test("a page that is seen again notices that its connection has failed, and goes on", async () => {
    const { open, proxy, topics } = await reader();
    const page = await open();
    await topics.publish("t", "1");
    await gets(page, ["1"]);
    proxy.freeze();
    await topics.publish("t", "2");
    await page.evaluate(() => document.dispatchEvent(new Event("resume")));
    // Five seconds for an answer, instead of the thirty of a connection that nobody looks at.
    await page.waitForFunction(
      () => (globalThis as unknown as InPage).topics.stats.node === undefined,
      undefined,
      {
        timeout: 9_000,
      },
    );
    proxy.freeze(false);
    await gets(page, ["1", "2"]);
  });

  test("several tabs read the same topic, and each gets everything once", async () => {
    const { open, proxy, topics } = await reader({ reconnect: { first: 20, max: 100 } });
    const pages = [await open(), await open(), await open()];
    const all = numbers(300);
    for (let at = 0; at < all.length; at += 100) {
      await topics.publishMany(all.slice(at, at + 100).map((data) => ({ topic: "t", data })));
      proxy.cut();
    }
    for (const page of pages) await gets(page, all);
  });
});
