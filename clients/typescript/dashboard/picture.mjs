// Makes the pictures of the guide: a server with busy clients, cuts, and consumers that stop, seen for a minute and a
// half. Build the package first, and set UNSTALL_BIN or build the program.
//
//   node dashboard/picture.mjs ../../docs/src/images

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { connect as connectTcp, createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { connect } from "../dist/index.js";
import { openChromium } from "../proof/chromium.mjs";

const TARGET = fileURLToPath(new URL("../../../target", import.meta.url));
const bin = [process.env.UNSTALL_BIN, `${TARGET}/debug/unstall`, `${TARGET}/release/unstall`].find(
  (path) => path && existsSync(path),
);
const [, , images = TARGET] = process.argv;
const wait = (millis) => new Promise((resolve) => setTimeout(resolve, millis));

async function startServer() {
  const child = spawn(bin, ["serve", "--listen", "127.0.0.1:0"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const [, port] = /listening on ws:\/\/.*:(\d+)/.exec(line) ?? [];
    if (port) return { child, port: Number(port) };
  }
  throw new Error("the server did not start");
}

/** A way to the server that can be cut. */
async function cutter(port) {
  const open = new Set();
  const server = createServer((client) => {
    const far = connectTcp(port, "127.0.0.1");
    const end = () => {
      client.destroy();
      far.destroy();
      open.delete(end);
    };
    open.add(end);
    for (const socket of [client, far]) socket.on("error", end).on("close", end);
    client.pipe(far).pipe(client);
  });
  await new Promise((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const cut = () => {
    for (const end of [...open]) if (Math.random() < 0.5) end();
  };
  return { port: server.address().port, cut };
}

function plain(port, path) {
  const made = new WebSocket(`ws://127.0.0.1:${port}${path}`);
  made.on("error", () => {}).on("message", () => {});
  return new Promise((resolve) => {
    made.once("open", () => resolve(made));
  });
}

/** Sends with a rate that goes up and down. */
async function busy(port, nth) {
  const made = await plain(port, "/echo");
  setInterval(() => {
    const wave = 1 + Math.sin(Date.now() / 9_000 + nth / 3);
    const count = Math.floor(Math.random() * wave * (1 + (nth % 7)));
    for (let at = 0; at < count; at++) made.send("x".repeat(120 + 10 * nth));
  }, 100);
}

async function session(port, nth) {
  const options = { WebSocket, reconnect: { first: 5, max: 60 } };
  const made = await connect(`ws://127.0.0.1:${port}/echo`, options);
  setInterval(() => void made.send(`message of ${nth}`).catch(() => {}), 40 + 20 * nth);
  for await (const _ of made);
}

const ASKED = JSON.stringify({ count: 200_000, size: 4_096 });

const server = await startServer();
const way = await cutter(server.port);
for (let nth = 0; nth < 24; nth++) await busy(server.port, nth);
for (let nth = 0; nth < 12; nth++) void session(way.port, nth);
setInterval(way.cut, 7_000);
const { browser } = await openChromium();
try {
  const page = await browser.newPage({ viewport: { width: 1360, height: 960 } });
  await page.goto(`http://127.0.0.1:${server.port}/`);
  await wait(25_000);
  const stopped = [];
  for (let nth = 0; nth < 3; nth++) {
    const made = await plain(server.port, "/packets");
    made.send(ASKED);
    made.pause();
    stopped.push(made);
    await wait(4_000);
  }
  for (let nth = 0; nth < 2; nth++) {
    const made = await connect(`ws://127.0.0.1:${server.port}/packets`, { WebSocket });
    await made.send(ASKED);
    await wait(3_000);
  }
  await wait(20_000);
  stopped.pop().terminate();
  await wait(22_000);
  await page.mouse.move(640, 10);
  await page.screenshot({ path: `${images}/dashboard.png` });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.click(".row");
  await page.waitForFunction(() => document.getElementById("d-verdict")?.textContent);
  await wait(1_500);
  await page.screenshot({ path: `${images}/dashboard-connection.png` });
} finally {
  await browser.close();
  server.child.kill();
}
process.exit();
