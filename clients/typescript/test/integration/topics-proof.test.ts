import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, expect, test } from "vitest";
import WebSocket from "ws";
import { Topics } from "../../src/index.ts";
import { Hub } from "../support/hub.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const CHROMIUM = process.env.UNSTALL_CHROMIUM ?? "/usr/bin/chromium";
const COUNT = 500;

let hub: Hub;

/** Runs a proof client to its end: its exit code, and what it said. */
async function ran(script: string, ...args: string[]): Promise<{ code: number; said: string }> {
  const child = spawn("node", [`${ROOT}/proof/${script}`, ...args], {
    stdio: ["ignore", "inherit", "pipe"],
  });
  let said = "";
  child.stderr.on("data", (chunk) => {
    said += chunk;
  });
  const [code] = await once(child, "close");
  return { code, said };
}

/** What `unstall verify --topics --client` does, without its faults. */
async function goesThrough(script: string): Promise<void> {
  hub = await Hub.start();
  const topics = new Topics(hub.url, { WebSocket: WebSocket as never });
  const result = ran(script, hub.url);
  const data = (at: number) => (at % 2 ? `text ${at}` : new Uint8Array([at, 0, 255]));
  const sent = Array.from({ length: COUNT }, (_, at) => ({ data: data(at), final: at === COUNT - 1 }));
  const stored = topics.publishMany(sent.map((it) => ({ topic: "verify.in", ...it })));
  const got = [];
  for await (const it of topics.subscribe("verify.out"))
    got.push(it.type === "message" ? { data: it.data, final: it.final } : it);
  expect(got).toEqual(sent);
  await stored;
  expect(await result).toEqual({ code: 0, said: `${COUNT} messages went through\n` });
  await topics.close();
}

beforeAll(async () => {
  const build = spawn("npm", ["run", "--silent", "build"], { cwd: ROOT, stdio: "ignore" });
  expect(await once(build, "close")).toEqual([0, null]);
});

afterEach(() => hub.kill());

test("the proof client in Node publishes what it received, and ends behind the final message", async () => {
  await goesThrough("topics.mjs");
});

test.runIf(existsSync(CHROMIUM))(
  "the proof client in Chromium publishes what it received, and ends behind the final message",
  () => goesThrough("topics-chromium.mjs"),
);

test("the proof client tells of a gap, and fails", async () => {
  hub = await Hub.start("--max-bytes", "100000");
  const topics = new Topics(hub.url, { WebSocket: WebSocket as never });
  await topics.publishMany([..."abc"].map((data) => ({ topic: "verify.in", data })));
  const other = new Topics(hub.url, { WebSocket: WebSocket as never });
  const reader = other.subscribe("verify.in");
  await reader.next();
  const child = spawn("node", [`${ROOT}/proof/topics.mjs`, hub.url], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.on("data", (chunk) => {
    said += chunk;
  });
  const closed = once(child, "close");
  for await (const { type } of topics.subscribe("verify.out")) if (type === "message") break;
  // Another hub at the same address has another log.
  await hub.kill();
  await hub.start();
  expect((await closed)[0]).toBe(1);
  expect(said).toContain("another log");
  await Promise.all([topics.close(), other.close()]);
});
