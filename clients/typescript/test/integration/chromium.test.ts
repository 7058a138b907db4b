import type { CDPSession, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type * as Unstall from "../../src/index.ts";
import { hasChromium, openChromium } from "../support/browser.ts";
import { type Served, serve } from "../support/programs.ts";
import { FaultProxy, seeded, until } from "../support/proxy.ts";

// The package as it is published (npm run build), in a real browser.
declare const unstall: typeof Unstall;
/** Timers of a hidden tab run once a minute after ten seconds, not after five minutes. */
const SOON = "--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/10";
declare global {
  var session: Unstall.Session;
  var events: string[];
  var echo: (count: number) => Promise<number>;
  var rarest: number;
}

describe.runIf(hasChromium)("in Chromium", () => {
  let server: Served;
  let proxy: FaultProxy;
  let page: Page;
  /** Another tab of the same window. */
  let other: Page;
  let devtools: CDPSession;
  let close: () => Promise<void>;
  const errors: unknown[] = [];

  beforeAll(async () => {
    server = await serve();
    proxy = await FaultProxy.start(server.port);
    const chromium = await openChromium({ asUsersDo: true, args: [SOON] });
    close = chromium.close;
    other = await chromium.newPage();
    page = await chromium.newPage(proxy.url);
    devtools = await chromium.context.newCDPSession(page);
    page.on("pageerror", (error) => errors.push(error));
    await prepare();
  });
  afterEach(async () => {
    proxy.nextLimit = () => Number.POSITIVE_INFINITY;
    proxy.freeze(false);
    proxy.refuse(false);
    await page.evaluate(() => session?.abort());
    expect(errors).toEqual([]);
  });
  afterAll(async () => {
    await close?.();
    await proxy?.stop();
    await server?.kill();
  });

  /** What the tests need in the page. */
  async function prepare(): Promise<void> {
    await page.evaluate(() => {
      globalThis.events = [];
      globalThis.echo = async (count) => {
        const text = (index: number) => `${index}:${"ü".repeat(index % 30)}`;
        const sending = (async () => {
          for (let index = 0; index < count; index++) await session.send(text(index));
        })();
        let index = 0;
        for await (const incoming of session) {
          if (incoming !== text(index)) throw new Error(`${incoming} instead of ${text(index)}`);
          index += 1;
          if (index === count) break;
        }
        await sending;
        return index;
      };
    });
  }

  async function connect(path: string, options: Unstall.SessionOptions = {}): Promise<void> {
    await page.evaluate(
      async ([url, options]) => {
        globalThis.events.length = 0;
        globalThis.session = new unstall.Session(url, options);
        for (const name of ["disconnected", "resumed", "sessionlost", "reconnecting", "end"] as const) {
          session.addEventListener(name, () => globalThis.events.push(name));
        }
        await session.opened;
      },
      [`${proxy.url}${path}`, { reconnect: { first: 20, max: 200 }, ...options }] as const,
    );
  }

  const echo = (count: number) => page.evaluate((count) => globalThis.echo(count), count);
  const isConnected = () => page.evaluate(() => session.isConnected);
  const events = () => page.evaluate(() => globalThis.events);

  async function whenLost(within: number): Promise<void> {
    const deadline = performance.now() + within;
    while (await isConnected()) {
      if (performance.now() > deadline) throw new Error(`the loss was not noticed within ${within} ms`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  test("messages come back, each once and in order, over cuts at any byte", async () => {
    const random = seeded(7);
    proxy.nextLimit = () => Math.floor(random() < 0.2 ? random() * 900 : random() * 90_000);
    proxy.cuts = 0;
    await connect("/echo");
    expect(await echo(8_000)).toBe(8_000);
    expect(proxy.cuts).toBeGreaterThan(5);
    expect(await events()).toContain("resumed");
  });

  test("offline it waits, and goes on as soon as there is a network again", async () => {
    // The wait between two attempts is much longer than this test.
    await connect("/echo", { reconnect: { first: 600_000, max: 600_000 } });
    await page.context().setOffline(true);
    proxy.cut();
    await whenLost(5_000);
    await page.evaluate(() => session.send("from the tunnel"));
    expect(await isConnected()).toBe(false);
    await page.context().setOffline(false);
    const back = await page.evaluate(() => session.receive());
    expect(back).toBe("from the tunnel");
  });

  const isHidden = () => page.evaluate(() => document.visibilityState === "hidden");

  // Timers of a hidden tab run once a second, and once a minute after a while. `npm run test:long` takes that minute.
  const seldom = process.env.UNSTALL_LONG ? 60_000 : 1_000;

  /** Another tab comes to the front. From then on the timers of this page are late; the page notes how much. */
  async function hide(): Promise<void> {
    await other.bringToFront();
    await until(isHidden, "the page is hidden");
    await page.evaluate(() => {
      let before = performance.now();
      globalThis.rarest = 0;
      const tick = () => {
        const now = performance.now();
        globalThis.rarest = Math.max(globalThis.rarest, now - before);
        before = now;
        if (document.visibilityState === "hidden") setTimeout(tick, 50);
      };
      tick();
    });
  }

  async function show(): Promise<void> {
    await page.bringToFront();
    await until(async () => !(await isHidden()), "the page is seen");
  }

  const freeze = (state: "frozen" | "active") => devtools.send("Page.setWebLifecycleState", { state });
  const wait = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis));

  test("a page that was frozen goes on with its session, also if Chromium has closed the connection meanwhile", async () => {
    // The wait between two attempts is much longer than this test.
    await connect("/echo", { reconnect: { first: 600_000, max: 600_000 } });
    expect(await echo(10)).toBe(10);
    await hide();
    await freeze("frozen");
    await wait(500);
    await freeze("active");
    expect(await echo(10)).toBe(10);
    // Mostly Chromium closes it. On a busy machine it did not, and that is as good.
    const ways = [[], ["disconnected", "reconnecting", "resumed"]];
    expect(ways).toContainEqual(await events());
    await show();
  });

  test("a page goes into the back-forward cache with its session, and goes on", async () => {
    await connect("/echo");
    await page.evaluate(() => {
      // Only the same page has it afterwards, not one that was loaded again.
      Object.assign(globalThis, { kept: true });
      addEventListener("pagehide", () => void session.send("into the cache"));
    });
    await page.goto(`${proxy.url.replace("ws", "http")}/?elsewhere`);
    // Playwright waits for a load that does not come from the cache.
    await page.evaluate(() => history.back()).catch(() => {});
    await page.waitForFunction("globalThis.kept");
    expect(await page.evaluate(() => session.receive())).toBe("into the cache");
    expect(await events()).toEqual(["disconnected", "resumed"]);
  });

  test("a hidden page keeps a connection that is alive, and acknowledges without timers", {
    timeout: 5 * seldom + 60_000,
  }, async () => {
    await connect("/echo", { pingInterval: seldom / 6, silenceTimeout: seldom / 2 });
    await hide();
    expect(await echo(1000)).toBe(1000);
    await wait(2.5 * seldom);
    expect(await page.evaluate(() => globalThis.rarest)).toBeGreaterThan(0.7 * seldom);
    expect(await echo(10)).toBe(10);
    expect(await events()).toEqual([]);
    await show();
    expect(await echo(10)).toBe(10);
  });

  test("a hidden page does not trust its connection: when it is seen again, it asks at once", async () => {
    await connect("/echo", { pingInterval: 600_000, silenceTimeout: 600_000 });
    await hide();
    proxy.freeze();
    await show();
    await whenLost(9_000);
    proxy.freeze(false);
    expect(await echo(10)).toBe(10);
  });

  test("a page that is loaded again leaves nothing behind that hurts the next session", async () => {
    await connect("/packets");
    await page.evaluate(() => session.send(JSON.stringify({ count: 100_000, size: 1000 })));
    await page.evaluate(() => session.receive());
    await page.reload();
    await page.waitForFunction("globalThis.unstall");
    await prepare();
    await connect("/echo");
    expect(await echo(100)).toBe(100);
  });

  /** Memory of the page after its garbage is collected: the heap, and the buffers outside of it. */
  async function memory(): Promise<number> {
    await devtools.send("HeapProfiler.collectGarbage");
    const usage = (await devtools.send("Runtime.getHeapUsage")) as Record<string, number>;
    return usage.usedSize! + (usage.backingStorageSize ?? 0);
  }

  test("100,000 packets and a consumer that stops and goes: memory stays under the window", async () => {
    const window = 1 << 20;
    await connect("/packets", { window, largestWindow: window });
    const before = await memory();
    await page.evaluate(() => session.send(JSON.stringify({ count: 100_000, size: 1_000 })));
    let most = 0;
    for (let round = 0; round < 10; round++) {
      // Nothing is taken until the server has used up its credit, which is more than half the window: but
      // for one packet, which the rest of the credit does not cover.
      await page.waitForFunction((least) => session.stats().untaken > least, window / 3);
      most = Math.max(most, await memory());
      const taken = await page.evaluate(async (round) => {
        for (let count = 0; count < 10_000; count++) {
          const data = await session.receive();
          if (!(data instanceof Uint8Array)) throw new Error(`${data} instead of a packet`);
          const index = new DataView(data.buffer, data.byteOffset).getBigUint64(0);
          if (index !== BigInt(round * 10_000 + count)) throw new Error(`packet ${index}`);
        }
        return session.stats().untaken;
      }, round);
      if (round < 9) expect(taken).toBeGreaterThanOrEqual(0);
      if (round === 9) break;
    }
    expect(await page.evaluate(() => session.receive())).toBe('{"done":100000}');
    // The window, the packets that are being read, and the objects of short messages.
    expect(most - before).toBeLessThan(4 * window);
    expect(most - before).toBeGreaterThan(window / 4);
  });

  test("without credit the same page holds all that comes: a WebSocket has no backpressure", async () => {
    const before = await memory();
    await page.evaluate(async (url) => {
      const socket = new WebSocket(url);
      socket.binaryType = "arraybuffer";
      const held: unknown[] = [];
      Object.assign(globalThis, { held });
      await new Promise<void>((resolve, reject) => {
        socket.onopen = () => socket.send(JSON.stringify({ count: 20_000, size: 1_000 }));
        socket.onerror = reject;
        socket.onmessage = (event) => {
          held.push(event.data);
          if (held.length === 20_001) resolve();
        };
      });
      socket.close();
    }, `${proxy.url}/packets`);
    expect((await memory()) - before).toBeGreaterThan(18_000_000);
    await page.evaluate(() => Object.assign(globalThis, { held: undefined }));
  });

  test("the loss of the server is told in the page, and another session follows", async () => {
    await connect("/echo");
    await server.kill();
    await whenLost(5_000);
    server = await serve("serve", [], server.port);
    await until(() => proxy.connections > 0, "the page connects again");
    const gap = await page.evaluate(async () => String(await session.receive()));
    expect(gap).toContain("session lost");
    expect(await echo(10)).toBe(10);
  });
});
