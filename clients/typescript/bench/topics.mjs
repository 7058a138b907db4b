#!/usr/bin/env node
// A subscription beside a bare WebSocket that receives as much, in Node (the package ws) and in Chromium. It needs
// the built package, and the program in release (UNSTALL_BIN).
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import * as unstall from "unstall";
import { WebSocket } from "ws";
import { findChromium, openChromium } from "../proof/chromium.mjs";
import { prepare, read } from "./topics-work.mjs";
import { measure } from "./work.mjs";

const program =
  process.env.UNSTALL_BIN ?? new URL("../../../target/release/unstall", import.meta.url).pathname;
const rounds = Number(process.env.ROUNDS ?? 5);
const children = [];

async function start(...args) {
  const child = spawn(program, [...args, "--listen", "127.0.0.1:0"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  return new Promise((resolve) => {
    createInterface(child.stdout).on("line", (line) => {
      const [url] = /ws:\/\/[\d.:]+/.exec(line) ?? [];
      if (url) resolve(url);
    });
  });
}

const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
const server = await start("serve");
const hub = await start("hub", "--max-bytes", "1000000000");
const cases = [
  { topic: "small", size: 64, count: 200_000, direction: "down" },
  { topic: "large", size: 1_024, count: 60_000, direction: "down" },
];
for (const work of cases) await prepare({ unstall, WebSocket, hub: `${hub}/topics`, ...work });

async function compare(name, topics, bare, work) {
  const rates = { topics: [], batches: [], bare: [] };
  for (let round = 0; round <= rounds; round++) {
    const pair = {
      topics: await topics(work),
      batches: await topics({ ...work, how: "batches" }),
      bare: await bare(work),
    };
    // The first round only warms up.
    if (round > 0) for (const how of Object.keys(pair)) rates[how].push(pair[how]);
  }
  const plain = median(rates.bare);
  const shown = (how) => {
    const rate = median(rates[how]);
    return `${Math.round(rate).toLocaleString("en")}/s (${(rate / plain).toFixed(2)}×)`;
  };
  const [topic, batches] = [shown("topics"), shown("batches")];
  console.log(`${name} ${work.size} B: topics ${topic}, batches ${batches}, bare ${shown("bare")}`);
}

for (const work of cases)
  await compare(
    "node",
    (it) => read({ unstall, WebSocket, hub: `${hub}/topics`, ...it }),
    (it) => measure({ unstall, WebSocket, url: server, how: "bare", ...it }),
    work,
  );

if (findChromium()) {
  // A page reaches only the server of its own address: one page for each.
  const chromium = await openChromium();
  const opened = [await chromium.newPage(hub), await chromium.newPage(server)];
  const name = (file) => new URL(file, import.meta.url);
  for (const page of opened) {
    const source = ["topics-work.mjs", "work.mjs"].map((file) => readFileSync(name(file), "utf8"));
    const content = `${source.join("\n")}\nObject.assign(globalThis, { read, measure });`;
    await page.addScriptTag({ type: "module", content });
    await page.waitForFunction("globalThis.measure");
  }
  const [topics, bare] = opened;
  for (const work of cases)
    await compare(
      "chromium",
      (it) =>
        topics.evaluate((it) => globalThis.read({ unstall: globalThis.unstall, ...it }), {
          hub: `${hub}/topics`,
          ...it,
        }),
      (it) =>
        bare.evaluate(
          (it) => globalThis.measure({ WebSocket: globalThis.WebSocket, how: "bare", ...it }),
          { url: server, ...it },
        ),
      work,
    );
  await chromium.close();
}
for (const child of children) child.kill();
