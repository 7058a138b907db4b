import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import WebSocket from "ws";
import { type Delivery, PublishError, Topics, type TopicsOptions, UnstallError } from "../../src/index.ts";
import { Hub } from "../support/hub.ts";

/** What a test has opened, in order. */
const opened: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

async function hubOf(...args: string[]): Promise<Hub> {
  const hub = await Hub.start(...args);
  opened.push(() => hub.kill());
  return hub;
}

async function directory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "unstall-"));
  opened.push(() => rm(path, { recursive: true }));
  return path;
}

/** A client whose attempts follow quickly. */
function topicsOf(urls: string | string[], options: TopicsOptions = {}): Topics {
  const reconnect = { first: 20, max: 100 };
  const topics = new Topics(urls, { WebSocket: WebSocket as never, reconnect, ...options });
  opened.push(() => topics.close({ within: 0 }));
  return topics;
}

/** The texts of the messages; other deliveries by their type. */
async function textsOf(deliveries: AsyncIterable<Delivery>, count = Number.POSITIVE_INFINITY) {
  const texts: string[] = [];
  for await (const delivery of deliveries) {
    texts.push(delivery.type === "message" ? `${delivery.data}` : delivery.type);
    if (texts.length >= count) break;
  }
  return texts;
}

const numbers = (count: number, first = 1) => Array.from({ length: count }, (_, at) => `${first + at}`);

test("what is published is delivered in order, and the final message ends the subscription", async () => {
  const hub = await hubOf();
  const topics = topicsOf(hub.url);
  const sent = numbers(100);
  for (const text of sent) void topics.publish("t", text);
  const { offset, durability } = await topics.publish("t", "end", { final: true });
  expect({ offset, durability }).toEqual({ offset: 101, durability: "in memory" });
  const subscription = topics.subscribe("t");
  expect(await textsOf(subscription)).toEqual([...sent, "end"]);
  expect(subscription.stats.messages).toBe(101);
});
