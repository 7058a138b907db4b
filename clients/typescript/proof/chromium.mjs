// A page in a real Chromium that can import this package, and connections of its own origin.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { connect, createServer as createTcpServer } from "node:net";
import { extname, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { findChromium, TIMEOUT } from "./page.mjs";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript" };

const PAGE = `<!doctype html><title>unstall</title><script type="module">
import * as unstall from "/dist/index.js";
globalThis.unstall = unstall;
</script>`;

function listening(server) {
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve(server.address().port));
  });
}

/** Serves the files of this package. */
function fileServer() {
  return createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
    if (path === "/" || path === "/favicon.ico") {
      response.setHeader("content-type", "text/html");
      // Without these a page may not measure its memory.
      response.setHeader("cross-origin-opener-policy", "same-origin");
      response.setHeader("cross-origin-embedder-policy", "require-corp");
      response.end(PAGE);
      return;
    }
    try {
      const body = await readFile(`${ROOT}${path}`);
      response.setHeader("content-type", TYPES[extname(path)] ?? "text/plain");
      response.end(body);
    } catch {
      response.statusCode = 404;
      response.end();
    }
  });
}

/** Carries TCP to another server, whose pages are then those of this one: a hub refuses other sites. */
function originRelay(port, host) {
  return createTcpServer((client) => {
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
}

/** Starts Chromium, and what its pages need. */
export async function openChromium(args = []) {
  const servers = [fileServer()];
  const port = await listening(servers[0]);
  const flags = ["--no-sandbox", "--disable-dev-shm-usage", "--enable-precise-memory-info", ...args];
  const browser = await chromium.launch({ executablePath: findChromium(), args: flags });
  return {
    browser,
    origin: `http://127.0.0.1:${port}`,
    /** A page that has this package as `globalThis.unstall`. Its errors are printed. */
    async newPage() {
      const page = await browser.newPage();
      page.setDefaultTimeout(TIMEOUT);
      page.on("pageerror", (error) => console.error(`page: ${error.stack ?? error}`));
      await page.goto(`http://127.0.0.1:${port}/`);
      await page.waitForFunction("globalThis.unstall");
      return page;
    },
    /** The URL by which a page reaches a WebSocket server that takes only its own pages. */
    async sameOrigin(url) {
      const { hostname, port: at, pathname, search } = new URL(url);
      const relay = originRelay(Number(at), hostname);
      servers.push(relay);
      return `ws://127.0.0.1:${await listening(relay)}${pathname}${search}`;
    },
    async close() {
      await browser.close();
      for (const server of servers) {
        server.close();
        server.closeAllConnections?.();
      }
    },
  };
}
