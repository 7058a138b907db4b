// Pages of a real Chromium that have this package as `globalThis.unstall`.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

/** Far longer than anything takes on a machine that is not overloaded, in milliseconds. */
const TIMEOUT = 120_000;
const ROOT = fileURLToPath(new URL("..", import.meta.url));
const FLAGS = [
  "--no-sandbox",
  "--disable-dev-shm-usage",
  "--enable-precise-memory-info",
  "--js-flags=--expose-gc",
  // The pages come from here, so Chromium does not take them for those of this host.
  "--disable-features=LocalNetworkAccessChecks",
];

/** Chromium: `CHROMIUM`, else the first of its usual names on the path. Nothing if it is not there. */
export function findChromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    try {
      return execFileSync("which", [name], { stdio: ["ignore", "pipe", "ignore"] })
        .toString()
        .trim();
    } catch {}
  }
  return undefined;
}

const PAGE = `<!doctype html><title>unstall</title><script type="module">
import * as unstall from "/dist/index.js";
globalThis.unstall = unstall;
</script>`;

/** What a page asks for comes from here, not from the network. */
function answer(route) {
  const path = new URL(route.request().url()).pathname;
  const headers = {
    // Without these a page may not measure its memory.
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
  };
  if (path === "/") return route.fulfill({ contentType: "text/html", headers, body: PAGE });
  const file = `${ROOT}${path.slice(1)}`;
  const isKnown = /^\/(dist|proof)\/[\w.-]+\.m?js$/.test(path) && existsSync(file);
  if (!isKnown) return route.fulfill({ status: 404 });
  return route.fulfill({ contentType: "text/javascript", body: readFileSync(file) });
}

/** Carries TCP to a server that takes only pages of its own address, and says that the page is one. */
async function originRelay(port, host) {
  const relay = createServer((client) => {
    const server = connect(port, host);
    const ends = [client, server];
    for (const end of ends) end.on("error", () => ends.forEach((it) => void it.destroy()));
    let head = "";
    const onHead = (chunk) => {
      head += chunk.toString("latin1");
      if (!head.includes("\r\n\r\n")) return;
      client.off("data", onHead);
      const [, name] = /^host: *(.*)\r$/im.exec(head) ?? [];
      server.write(head.replace(/^origin: .*\r$/im, `Origin: http://${name}\r`), "latin1");
      client.pipe(server);
    };
    client.on("data", onHead);
    server.pipe(client);
    client.on("close", () => server.destroy());
    server.on("close", () => client.destroy());
  });
  await new Promise((resolve) => {
    relay.listen(0, "127.0.0.1", resolve);
  });
  return relay;
}

/**
 * Chromium as its users have it: a tab behind another one is hidden, its timers are throttled, it can be frozen, and
 * a page that is left goes into the back-forward cache. What Playwright starts by itself does nothing of it.
 */
async function launchAsUsersDo(executablePath, flags) {
  const profile = await mkdtemp(join(tmpdir(), "unstall-chromium-"));
  const own = ["--headless=new", "--no-first-run", "--remote-debugging-port=0"];
  const args = [...own, `--user-data-dir=${profile}`, ...flags, "about:blank"];
  const child = spawn(executablePath, args, { stdio: ["ignore", "ignore", "pipe"] });
  const url = await new Promise((resolve, reject) => {
    createInterface(child.stderr).on("line", (line) => {
      const [, found] = /DevTools listening on (\S+)/.exec(line) ?? [];
      if (found) resolve(found);
    });
    child.once("exit", () => reject(new Error("Chromium did not start")));
  });
  const browser = await chromium.connectOverCDP(url, { noDefaults: true });
  const close = async () => {
    const ended = once(child, "exit");
    child.kill();
    await ended;
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return { browser, context: browser.contexts()[0], close };
}

/** Starts Chromium. `asUsersDo`: as its users have it, with tabs that are really hidden. */
export async function openChromium({ args = [], asUsersDo = false } = {}) {
  const executablePath = findChromium();
  if (!executablePath) throw new Error("there is no Chromium: install it, or set CHROMIUM");
  const flags = [...FLAGS, ...args];
  const started = asUsersDo
    ? await launchAsUsersDo(executablePath, flags)
    : { browser: await chromium.launch({ executablePath, args: flags }) };
  const { browser, context = await browser.newContext() } = started;
  context.setDefaultTimeout(TIMEOUT);
  await context.route(/^https?:/, answer);
  const relays = [];
  return {
    browser,
    context,
    /**
     * A page that has this package as `globalThis.unstall`. It comes from the address of a WebSocket server, if one
     * is given: a server accepts no other pages. Its errors are printed.
     */
    async newPage(webSocketUrl = "ws://127.0.0.1/") {
      const page = await context.newPage();
      page.on("pageerror", (error) => console.error(`page: ${error.stack ?? error}`));
      await page.goto(`${new URL(webSocketUrl).origin.replace("ws", "http")}/`);
      await page.waitForFunction("globalThis.unstall");
      return page;
    },
    /** The URL by which any page reaches a WebSocket server. */
    async sameOrigin(url) {
      const { hostname, port, pathname, search } = new URL(url);
      const relay = await originRelay(Number(port), hostname);
      relays.push(relay);
      return `ws://127.0.0.1:${relay.address().port}${pathname}${search}`;
    },
    async close() {
      await browser.close();
      await started.close?.();
      for (const relay of relays) relay.close();
    },
  };
}
