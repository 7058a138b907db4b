// A page of Chromium that has this package as `globalThis.unstall`.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

/** Far longer than anything takes on a machine that is not overloaded, in milliseconds. */
export const TIMEOUT = 120_000;

const root = fileURLToPath(new URL("../", import.meta.url));

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

const page = `<!doctype html><title>unstall</title><script type="module">
import * as unstall from "./dist/index.js";
globalThis.unstall = unstall;
globalThis.ready = true;
</script>`;

/** What the page asks for comes from here, not from the network. */
function answer(route) {
  const path = new URL(route.request().url()).pathname;
  if (path === "/") return route.fulfill({ contentType: "text/html", body: page });
  const file = `${root}${path.slice(1)}`;
  if (!/^\/dist\/[\w.-]+\.js$/.test(path) || !existsSync(file)) return route.fulfill({ status: 404 });
  return route.fulfill({ contentType: "text/javascript", body: readFileSync(file) });
}

/**
 * Opens a page from the same host and port as the WebSocket URL: a server accepts no other pages. `close` ends
 * the page and the browser.
 */
export async function openPage(webSocketUrl) {
  const executablePath = findChromium();
  if (!executablePath) throw new Error("there is no Chromium: install it, or set CHROMIUM");
  const args = [
    ...[
      "--no-sandbox",
      "--disable-dev-shm-usage",
      "--enable-precise-memory-info",
      "--js-flags=--expose-gc",
    ],
    // The page comes from here, so Chromium does not take it for one of this host.
    "--disable-features=LocalNetworkAccessChecks",
  ];
  const browser = await chromium.launch({ executablePath, args });
  const context = await browser.newContext();
  context.setDefaultTimeout(TIMEOUT);
  await context.route(/^https?:/, answer);
  const opened = await context.newPage();
  const url = `${new URL(webSocketUrl).origin.replace("ws", "http")}/`;
  await opened.goto(url);
  await opened.waitForFunction("globalThis.ready");
  return { page: opened, context, browser, url, close: () => browser.close() };
}
