/** The page of unstall-dashboard, as `unstall serve` and `unstall hub` show it, in Chromium. */

import { mkdir } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { beforeAll, describe, expect, test } from "vitest";
import WebSocket from "ws";
import { connect } from "../../src/index.ts";
import { hasChromium, openChromium } from "../support/browser.ts";
import { type Served, serve } from "../support/programs.ts";
import { FaultProxy } from "../support/proxy.ts";
import { closeBehindEach, directory, hubOf, jwt, opened } from "../support/topics.ts";

closeBehindEach();

/** Pictures for whoever looks at what CI has made. */
const PICTURES = fileURLToPath(new URL("../../../../target/dashboard/", import.meta.url));
/** As many connections as the page lists. */
const MANY = 10_000;

const DESKTOP: BrowserContextOptions = { viewport: { width: 1360, height: 1000 } };

async function served(command = "serve", args: string[] = [], port = 0): Promise<Served> {
  const server = await serve(command, args, port);
  // Nobody reads its log, which must not fill the pipe.
  server.process.stderr?.resume();
  opened.push(() => server.kill());
  return server;
}

let shared: Browser | undefined;

async function open(url: string, options: BrowserContextOptions = DESKTOP, live = true): Promise<Page> {
  if (!shared) {
    const chromium = await openChromium();
    shared = chromium.browser;
  }
  const context = await shared.newContext(options);
  opened.push(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on("pageerror", (error) => {
    throw error;
  });
  await page.goto(url.replace("ws:", "http:"));
  if (live) await page.waitForSelector("#link[data-state=live]");
  return page;
}

const picture = (page: Page, name: string) => page.screenshot({ path: `${PICTURES}${name}.png` });

function socket(url: string, localAddress = "127.0.0.1"): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    const made = new WebSocket(url, { localAddress });
    opened.push(async () => made.terminate());
    made.on("message", () => {});
    made.once("open", () => resolve(made)).once("error", reject);
  });
}

/** A client that sends and gets echoes. */
async function busy(url: string, each: number): Promise<void> {
  const made = await socket(`${url}/echo`);
  made.on("error", () => {});
  const timer = setInterval(() => {
    for (let at = 0; at < each; at++) if (made.readyState === 1) made.send("x".repeat(200));
  }, 100);
  opened.push(async () => clearInterval(timer));
}

/** A client that asks for much and reads nothing of it. */
async function lazy(url: string): Promise<void> {
  const made = await socket(`${url}/packets`);
  made.send(JSON.stringify({ count: 200_000, size: 4_096 }));
  made.pause();
}

const wide = (page: Page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

describe.runIf(hasChromium)("in Chromium", () => {
  beforeAll(async () => {
    await mkdir(PICTURES, { recursive: true });
    return () => shared?.close();
  });

  test("a consumer that stalls is seen within two seconds, with its cause", async () => {
    const server = await served();
    const page = await open(server.url);
    for (const each of [1, 4, 9, 16]) await busy(server.url, each);
    await page.waitForFunction(() => document.querySelectorAll(".row").length === 4);
    await lazy(server.url);
    const shown = await page.waitForFunction(() => {
      const row = document.querySelector(".row:has([data-cause=socket_full])");
      return row && { at: Date.now(), words: row.querySelector(".cause")?.textContent };
    });
    const { at, words } = (await shown.jsonValue()) as { at: number; words: string };
    expect(words).toBe("the peer is not reading");
    const status = await (await fetch(`${server.url.replace("ws:", "http:")}/status.json`)).json();
    const [first] = status.connections;
    expect(first.stalls[0].cause).toBe("socket_full");
    expect(at - first.stalls[0].since).toBeLessThan(2_000);
    // It is the first row, and the outbox is full.
    expect(await page.textContent(".row .cause")).toBe(words);
    await picture(page, "stalled");

    await page.click(".row:has([data-cause=socket_full])");
    await page.waitForFunction(() => document.getElementById("d-verdict")?.textContent);
    expect(await page.textContent("#d-causes")).toContain("the peer is not reading");
    expect(await page.textContent("#d-verdict")).toBe("peer not reading");
    expect(await page.textContent("#d-events")).toContain("connected");
    await picture(page, "connection");
    await page.keyboard.press("Escape");
    await page.waitForSelector("#detail", { state: "hidden" });
  }, 150_000);

  test("an empty server says that nothing is there, and shows what comes", async () => {
    const server = await served();
    const page = await open(server.url);
    expect(await page.textContent("#none")).toBe("No connections yet.");
    expect(await page.textContent("#t-connections")).toBe("0");
    await picture(page, "empty");
    await socket(`${server.url}/echo`);
    await page.waitForSelector(".row");
    await page.waitForFunction(() => document.querySelector("#t-connections")?.textContent === "1");
  });

  test("a page whose server is killed says so, and comes back by itself", async () => {
    const server = await served();
    const page = await open(server.url, { ...DESKTOP, colorScheme: "dark" });
    await busy(server.url, 5);
    await page.waitForSelector(".row");
    await server.kill();
    await page.waitForSelector("#gone:not([hidden])");
    expect(await page.textContent("#gone")).toContain("unstall serve has not answered since");
    // What was seen last is still there.
    expect(await page.locator(".row").count()).toBe(1);
    await picture(page, "gone");
    await served("serve", [], server.port);
    await page.waitForSelector("#link[data-state=live]");
    await page.waitForFunction(() => document.querySelectorAll(".row").length === 0);
    expect(await page.isHidden("#gone")).toBe(true);
  });

  test("a session that was cut tells it on its own page", async () => {
    const server = await served();
    const proxy = await FaultProxy.start(server.port);
    opened.push(async () => proxy.stop());
    const page = await open(server.url);
    const session = await connect(`${proxy.url}/echo`, {
      WebSocket: WebSocket as never,
      reconnect: { first: 20, max: 100 },
    });
    opened.push(async () => session.abort());
    const resumed = new Promise((resolve) => session.addEventListener("resumed", resolve));
    proxy.cut();
    await resumed;
    await page.click(".row");
    await page.waitForSelector("#d-events [data-kind=resumed]");
    const told = await page.locator("#d-events li").allTextContents();
    expect(told.join(" ")).toMatch(/resumed .+ later; \d+ records? sent again.*the connection was lost/);
    await page.waitForFunction(() =>
      /^1, median/.test(document.querySelector("#h-recoveries")!.textContent),
    );
  });

  test(`${MANY} connections are listed, sorted and found`, async () => {
    // The page itself is one more, and a server gives no address all its places.
    const server = await served("serve", ["--max-connections", String(2 * MANY)]);
    for (let at = 1; at < MANY; at += 250)
      await Promise.all(
        Array.from({ length: Math.min(250, MANY - at) }, () => socket(`${server.url}/echo`)),
      );
    await lazy(server.url);
    const page = await open(server.url);
    const all = MANY.toLocaleString("en");
    await page.waitForFunction(
      (all) => document.querySelector("#counted")?.textContent === `${all} connections`,
      all,
    );
    // Only what is seen is in the document.
    expect(await page.locator(".row").count()).toBeLessThan(40);
    await page.waitForSelector(".row:first-child [data-cause=socket_full]");
    await picture(page, "many");
    await page.locator("#rows").evaluate((it) => it.scrollTo(0, it.scrollHeight));
    await page.fill("#filter", `#${MANY - 3} `);
    await page.waitForFunction(() =>
      document.querySelector("#counted")?.textContent?.startsWith("1 of"),
    );
    await page.fill("#filter", "");
    await page.click("#heads [data-key=connection]");
    await page.waitForFunction(() =>
      document.querySelector(".row small")?.textContent?.startsWith("#1 "),
    );
  }, 300_000);

  test("on a phone everything fits", async () => {
    const server = await served();
    for (const each of [2, 7]) await busy(server.url, each);
    await lazy(server.url);
    const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
    const page = await open(server.url, { ...phone, deviceScaleFactor: 2 });
    await page.waitForSelector(".row [data-cause=socket_full]");
    expect(await wide(page)).toBe(0);
    await page.locator("#counted").scrollIntoViewIfNeeded();
    await page.screenshot({ path: `${PICTURES}phone.png`, fullPage: true });
    await page.tap(".row");
    await page.waitForFunction(() => document.getElementById("d-verdict")?.textContent);
    expect(await wide(page)).toBe(0);
    await picture(page, "phone-connection");
  });

  test("a hub with tokens shows nothing before the right one is entered", async () => {
    const key = `${await directory()}/key`;
    const secret = "a secret of at least thirty-two bytes";
    await (await import("node:fs/promises")).writeFile(key, secret);
    const hub = await hubOf("--token-key", key);
    const page = await open(`http://127.0.0.1:${hub.port}/`, DESKTOP, false);
    await page.waitForSelector("#enter:not([hidden])");
    await page.fill("#token", jwt(secret, { sub: [">"] }));
    await page.click("#enter button");
    await page.waitForFunction(() =>
      document.querySelector("#enter-why")?.textContent?.includes("operate"),
    );
    expect(await page.isHidden("#main")).toBe(true);
    await page.fill("#token", jwt(secret, { operate: true }));
    await page.click("#enter button");
    await page.waitForSelector("#link[data-state=live]");
    expect(await page.isVisible("#subscriptions")).toBe(true);
  });

  test("pages of other sites can neither embed nor read it", async () => {
    const server = await served();
    const target = server.url.replace("ws:", "http:");
    const evil = createServer((_, response) => {
      response.setHeader("content-type", "text/html");
      response.end(`<iframe src="${target}/"></iframe><iframe src="${target}/status.json"></iframe>`);
    });
    await new Promise<void>((resolve) => evil.listen(0, "127.0.0.1", resolve));
    opened.push(async () => evil.close());
    const page = await open(`http://localhost:${(evil.address() as AddressInfo).port}/`, DESKTOP, false);
    await page.waitForLoadState("load");
    const frames = page.frames().slice(1);
    expect(frames.length).toBe(2);
    for (const frame of frames) {
      const said = await frame.evaluate(() => document.body?.textContent ?? "").catch(() => "");
      expect(said).not.toContain("Stalled now");
      expect(said).not.toContain('"connections"');
    }
    const read = await page.evaluate(
      (url) =>
        fetch(url)
          .then((answer) => answer.text())
          .catch(() => "refused"),
      `${target}/status.json`,
    );
    expect(read).toBe("refused");
    const live = await page.evaluate(
      (url) =>
        new Promise((resolve) => {
          const made = new globalThis.WebSocket(url, ["unstall.topics.v1"]);
          made.onopen = () => resolve("open");
          made.onerror = () => resolve("refused");
        }),
      `${server.url}/status/live`,
    );
    expect(live).toBe("refused");
  });
});
