#!/usr/bin/env node
// Sessions beside a bare WebSocket, in Node (the package ws) and in Chromium, against `unstall serve`:
// `npm run bench`. It needs the built package, and the program in release (UNSTALL_BIN).
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import * as unstall from "unstall";
import { WebSocket } from "ws";
import { findChromium, openChromium } from "../proof/chromium.mjs";
import { measure } from "./work.mjs";

const program =
  process.env.UNSTALL_BIN ?? new URL("../../../target/release/unstall", import.meta.url).pathname;
const rounds = Number(process.env.ROUNDS ?? 5);
const server = spawn(program, ["serve", "--listen", "127.0.0.1:0"], {
  stdio: ["ignore", "pipe", "inherit"],
});
const url = await new Promise((resolve) => {
  createInterface(server.stdout).on("line", (line) => {
    resolve(/ws:\/\/[\d.:]+/.exec(line)[0]);
  });
});

const cases = [];
for (const direction of ["down", "up"]) {
  for (const [size, count] of [
    [64, 500_000],
    [1024, 200_000],
  ]) {
    cases.push({ direction, size, count });
  }
}

/** A bare WebSocket in Chromium is slow. */
const fewer = (work) => ({ ...work, count: work.count / 10 });

const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** The rates of one case: rounds in turn, so that what disturbs one disturbs all. */
async function compare(name, one, work) {
  const hows = work.direction === "down" ? ["session", "batches", "bare"] : ["session", "bare"];
  const rates = Object.fromEntries(hows.map((how) => [how, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const how of hows) {
      const rate = await one({ ...work, how });
      // The first round only warms up.
      if (round > 0) rates[how].push(rate);
    }
  }
  const bare = median(rates.bare);
  const shown = hows.map((how) => {
    const rate = median(rates[how]);
    const times = how === "bare" ? "" : ` (${(rate / bare).toFixed(2)}×)`;
    return `${how} ${Math.round(rate).toLocaleString("en")}/s${times}`;
  });
  console.log(`${name} ${work.direction} ${work.size} B: ${shown.join(", ")}`);
}

for (const work of cases)
  await compare("node", (it) => measure({ ...it, unstall, WebSocket, url }), work);

if (findChromium()) {
  const chromium = await openChromium();
  const page = await chromium.newPage(url);
  const source = readFileSync(new URL("work.mjs", import.meta.url), "utf8");
  await page.addScriptTag({ type: "module", content: `${source}\nglobalThis.measure = measure;` });
  await page.waitForFunction("globalThis.measure");
  const one = (it) =>
    page.evaluate(
      (it) =>
        globalThis.measure({ ...it, unstall: globalThis.unstall, WebSocket: globalThis.WebSocket }),
      { ...it, url },
    );
  for (const work of cases) await compare("chromium", one, fewer(work));
  await chromium.close();
}
server.kill();
