// Starts a hub, ticks and the page in Chromium, kills the hub, lets it come back, and takes a picture. It fails if
// the page misses a tick or gets one twice. Build the package first, and set UNSTALL_BIN or build the program.
//
//   node examples/chart/screenshot.mjs chart.png
//
// A second argument, such as 0.3, makes all of it take less time.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { openChromium } from "../../proof/chromium.mjs";
import { serveSite } from "../site.mjs";
import { publishTicks } from "./ticks.mjs";

const TARGET = fileURLToPath(new URL("../../../../target", import.meta.url));
const bin = [process.env.UNSTALL_BIN, `${TARGET}/debug/unstall`, `${TARGET}/release/unstall`].find(
  (path) => path && existsSync(path),
);
const [, , picture, share = "1"] = process.argv;
const wait = (millis) => new Promise((resolve) => setTimeout(resolve, Number(share) * millis));

async function startHub(store, port) {
  const args = ["hub", "--store", store, "--listen", `127.0.0.1:${port}`];
  const child = spawn(bin, args, { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: child.stdout })) {
    const [, found] = /listening on ws:\/\/.*:(\d+)/.exec(line) ?? [];
    if (found) return { child, port: Number(found) };
  }
  throw new Error("the hub did not start");
}

async function kill(child) {
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}

const store = await mkdtemp(join(tmpdir(), "unstall-chart-"));
let hub = await startHub(store, 0);
const hubUrl = `ws://127.0.0.1:${hub.port}`;
const site = await serveSite(hubUrl);
const stopTicks = publishTicks(`${hubUrl}/topics`);
const { browser } = await openChromium();
try {
  const page = await browser.newPage({ viewport: { width: 1200, height: 720 } });
  page.on("pageerror", (error) => console.error(`page: ${error.stack ?? error}`));
  await page.goto(`${site.url}/examples/chart/`);
  await wait(14_000);
  await kill(hub.child);
  await wait(4_000);
  hub = await startHub(store, hub.port);
  await wait(8_000);
  if (picture) await page.screenshot({ path: picture });
  const published = await stopTicks();
  // Everything that was published has to arrive: three pairs.
  const shown = (id) => page.textContent(`#${id}`).then((text) => Number(text.replaceAll(",", "")));
  for (let tries = 0; tries < 100 && (await shown("received")) < 3 * published; tries++) await wait(50);
  const [received, missing, twice] = [
    await shown("received"),
    await shown("missing"),
    await shown("twice"),
  ];
  const connections = await shown("connections");
  console.log(
    `${received} of ${3 * published} ticks, ${missing} missing, ${twice} twice, ${connections} connections`,
  );
  const isGood = received === 3 * published && missing === 0 && twice === 0 && connections > 1;
  process.exitCode = isGood ? 0 : 1;
} finally {
  await browser.close();
  site.stop();
  await kill(hub.child);
  await rm(store, { recursive: true });
}
