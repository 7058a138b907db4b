import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { hasChromium } from "../support/browser.ts";
import { FaultProxy, seeded, until } from "../support/proxy.ts";
import { closeBehindEach, directory, hubOf, opened, topicsOf } from "../support/topics.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const COUNT = 4_000;

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

/** What `unstall verify --topics --client` does: the hub is killed, and connections are cut. */
async function goesThrough(script: string): Promise<void> {
  const hub = await hubOf("--store", await directory());
  const proxy = await FaultProxy.start(hub.port);
  opened.push(() => proxy.stop());
  const random = seeded(5);
  proxy.nextLimit = () => 20_000 + Math.floor(random() * 50_000);
  const topics = topicsOf(hub.url);
  const result = ran(script, `${proxy.url}/topics,${hub.url}`);
  const data = (at: number) => (at % 2 ? `text ${at}` : new Uint8Array([at, 0, 255]));
  const sent = Array.from({ length: COUNT }, (_, at) => ({ data: data(at), final: at === COUNT - 1 }));
  const got: object[] = [];
  const reading = (async () => {
    for await (const it of topics.subscribe("verify.out"))
      got.push(it.type === "message" ? { data: it.data, final: it.final } : it);
  })();
  const publications = sent.map((it) => ({ topic: "verify.in", ...it }));
  for (let at = 0; at < COUNT; at += COUNT / 4) {
    await topics.publishMany(publications.slice(at, at + COUNT / 4));
    await until(() => got.length > at, "the first of them");
    await hub.kill();
    await hub.start();
    proxy.cut();
  }
  await reading;
  expect(got).toEqual(sent);
  expect(await result).toEqual({ code: 0, said: `${COUNT} messages went through\n` });
}

closeBehindEach();

test("the proof client in Node publishes what it received, and ends behind the final message", async () => {
  await goesThrough("topics.mjs");
});

test.runIf(hasChromium)(
  "the proof client in Chromium publishes what it received, and ends behind the final message",
  () => goesThrough("topics-chromium.mjs"),
);

test("the proof client tells of a gap, and fails", async () => {
  const hub = await hubOf();
  const topics = topicsOf(hub.url);
  await topics.publish("verify.in", "m");
  const result = ran("topics.mjs", hub.url);
  for await (const { type } of topics.subscribe("verify.out")) if (type === "message") break;
  // Started again, the hub has another log in its memory.
  await hub.kill();
  await hub.start();
  const { code, said } = await result;
  expect(code).toBe(1);
  expect(said).toContain("a gap");
});
