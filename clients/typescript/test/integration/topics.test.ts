import { rm } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type Delivery, PublishError, type Subscription, UnstallError } from "../../src/index.ts";
import { closeBehindEach, directory, hubOf, numbers, textsOf, topicsOf } from "../support/topics.ts";

closeBehindEach();

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

test("messages of every kind and size arrive as they are", async () => {
  const hub = await hubOf();
  const topics = topicsOf(hub.url, { maxMessageBytes: 1 << 20 });
  const bytes = crypto.getRandomValues(new Uint8Array(65_536));
  const sent = [
    "",
    "é😀\ud800",
    "x".repeat(300_000),
    new Uint8Array(0),
    bytes,
    bytes.subarray(1, 7_000),
  ];
  const view = new DataView(bytes.buffer, 10, 5);
  await topics.publishMany([...sent, view, "y".repeat(2 << 20)].map((data) => ({ topic: "t", data })));
  const got: unknown[] = [];
  for await (const delivery of topics.subscribe("t", { caughtUp: true })) {
    if (delivery.type === "caughtUp") break;
    got.push(delivery.type === "message" ? delivery.data : delivery.reason);
  }
  // Half of a surrogate pair becomes U+FFFD, as everywhere on the web.
  const expected = ["", "é😀\ufffd", ...sent.slice(2), bytes.subarray(10, 15), "too large"];
  expect(got).toEqual(expected);
});

test("a subscription goes on over a hub that is killed, once and in order", async () => {
  const hub = await hubOf("--store", await directory());
  const topics = topicsOf(hub.url);
  const subscription = topics.subscribe("t");
  const all = textsOf(subscription);
  for (let round = 0; round < 5; round++) {
    const batch = numbers(200, 200 * round + 1);
    const stored = topics.publishMany(batch.map((data) => ({ topic: "t", data })));
    await hub.kill();
    await hub.start();
    expect((await stored).filter((it) => it instanceof PublishError)).toEqual([]);
  }
  await topics.publish("t", "end", { final: true });
  expect(await all).toEqual([...numbers(1_000), "end"]);
  expect(topics.stats.connections).toBeGreaterThanOrEqual(5);
  expect(topics.stats.stored).toBe(1_001);
});

test("when one node is killed, the client goes on with the next one", async () => {
  const [one, two] = [await hubOf(), await hubOf()];
  const topics = topicsOf([one.url, two.url]);
  const subscription = topics.subscribe("t");
  await topics.publish("t", "here");
  expect(await textsOf(subscription, 1)).toEqual(["here"]);
  const saved = subscription.position;
  const again = topics.subscribe("t", { after: saved });
  const isFirst = (await textsOf(topics.subscribe("t", { caughtUp: true }), 2)).length === 2;
  expect(isFirst).toBe(true);
  const reached = (await fetch(`${one.http}/topics/t`).then((it) => it.text())) !== "";
  await (reached ? one : two).kill();
  await topics.publish("t", "there");
  // The other hub has a log of its own, and the gap says so.
  expect(await textsOf(again, 2)).toEqual(["gap", "there"]);
});

test("a saved position goes on in another client", async () => {
  const hub = await hubOf("--store", await directory());
  const first = topicsOf(hub.url);
  await first.publishMany(numbers(10).map((data) => ({ topic: "t", data })));
  const subscription = first.subscribe("t");
  expect(await textsOf(subscription, 4)).toEqual(numbers(4));
  const saved = subscription.position;
  expect(saved).toMatch(/^[0-9a-f]{32}:4:\d+$/);
  await first.close();
  await hub.kill();
  await hub.start();
  expect(await textsOf(topicsOf(hub.url).subscribe("t", { after: saved }), 6)).toEqual(numbers(6, 5));
});

test("each start begins where it says", async () => {
  const hub = await hubOf();
  const topics = topicsOf(hub.url);
  await topics.publishMany(numbers(5).map((data, at) => ({ topic: `p.${at % 2}`, data })));
  await new Promise((resolve) => setTimeout(resolve, 20));
  const moment = new Date();
  await topics.publish("p.2", "6");
  const upTo = async (options: object) =>
    await textsOf(untilCaughtUp(topics.subscribe("p.*", { ...options, caughtUp: true })));
  expect(await upTo({})).toEqual(numbers(6));
  expect(await upTo({ from: "now" })).toEqual([]);
  expect(await upTo({ from: "latest" })).toEqual(["4", "5", "6"]);
  expect(await upTo({ from: { last: 2 } })).toEqual(["5", "6"]);
  expect(await upTo({ from: { since: moment } })).toEqual(["6"]);
  expect(await upTo({ after: null, from: { last: 1 } })).toEqual(["6"]);
});

/** Ends at the mark. */
async function* untilCaughtUp(deliveries: AsyncIterable<Delivery>): AsyncGenerator<Delivery> {
  for await (const delivery of deliveries) {
    if (delivery.type === "caughtUp") return;
    yield delivery;
  }
}

test("what retention has removed is a gap in its place", async () => {
  const hub = await hubOf("--max-bytes", "100000");
  const topics = topicsOf(hub.url);
  const subscription = topics.subscribe("t");
  await topics.publish("t", "first");
  const { value } = await subscription.next();
  const saved = value?.position;
  subscription.close();
  await topics.publishMany(numbers(200).map(() => ({ topic: "t", data: "x".repeat(1_000) })));
  const later = topics.subscribe("t", { after: saved });
  const gap = (await later.next()).value;
  if (gap?.type !== "gap") throw new Error("no gap");
  expect([gap.reason, gap.after]).toEqual(["removed", 1]);
  const next = (await later.next()).value;
  expect(next?.type === "message" && next.offset).toBe(gap.through + 1);
  later.close();
});

test("another log under the same address is a gap, and then all that it has: live, and from a saved position", async () => {
  const path = join(await directory(), "log");
  const hub = await hubOf("--store", path);
  const topics = topicsOf(hub.url);
  await topics.publishMany(numbers(5).map((data) => ({ topic: "t", data })));
  const live = [topics.subscribe("t"), topics.subscribe("t", { from: "latest" })];
  expect(await nextTexts(live[0]!, 5)).toEqual(numbers(5));
  expect(await nextTexts(live[1]!, 1)).toEqual(["5"]);
  const saved = live[0]!.position;
  await hub.kill();
  await rm(path, { recursive: true });
  await hub.start();
  const sent = numbers(8).map((data) => `new ${data}`);
  await topics.publishMany(sent.map((data) => ({ topic: "t", data })));
  for (const subscription of [...live, topicsOf(hub.url).subscribe("t", { after: saved })]) {
    const gap = (await subscription.next()).value;
    expect(gap).toMatchObject({ type: "gap", reason: "another log", after: 5 });
    expect(await nextTexts(subscription, 8)).toEqual(sent);
    expect(subscription.position?.slice(0, 32)).not.toBe(saved?.slice(0, 32));
  }
});

/** The texts of what comes next. The subscription goes on. */
async function nextTexts(subscription: Subscription, count: number): Promise<string[]> {
  const texts: string[] = [];
  while (texts.length < count) {
    const { value } = await subscription.next();
    texts.push(value?.type === "message" ? `${value.data}` : `${value?.type}`);
  }
  return texts;
}

test("a subscription that nobody reads holds its window, and no other one waits for it", async () => {
  const hub = await hubOf();
  const topics = topicsOf(hub.url);
  const slow = topics.subscribe("t", { window: 262_144 });
  const all = textsOf(topics.subscribe("t"));
  const many = numbers(1_000).map((number) => ({ topic: "t", data: number.padEnd(2_000) }));
  await topics.publishMany([...many, { topic: "t", data: "end", final: true }]);
  expect((await all).length).toBe(1_001);
  expect(slow.stats.waitingBytes).toBeGreaterThan(200_000);
  expect(slow.stats.waitingBytes).toBeLessThanOrEqual(262_144);
  expect((await slow.next()).value).toMatchObject({ offset: 1 });
  expect(slow.stats.lag).toBeGreaterThan(90);
  expect((await textsOf(slow)).length).toBe(1_000);
  expect(slow.stats.lag).toBe(0);
});

test("a refused message says so, and that it is not stored", async () => {
  const hub = await hubOf();
  const topics = topicsOf(hub.url);
  const error = await topics.publish("not a topic", "m").catch((it) => it);
  expect(error).toBeInstanceOf(PublishError);
  expect([error.reason, error.mayBeStored]).toEqual(["invalid topic", false]);
  expect(() => topics.subscribe("a..b")).toThrow(UnstallError);
  expect(() => topics.subscribe("t", { after: "nonsense" })).toThrow("LOG:OFFSET:TIME");
});

test("a client that is closed tells of each message what is known", async () => {
  const hub = await hubOf();
  await hub.kill();
  const topics = topicsOf(hub.url);
  const subscription = topics.subscribe("t");
  const [waiting, sent] = [subscription.next(), topics.publish("t", "m")];
  await topics.close({ within: 10 });
  await expect(sent).rejects.toMatchObject({ reason: "not sent", mayBeStored: false });
  await expect(waiting).rejects.toMatchObject({ code: "closed" });
  await expect(topics.publish("t", "m")).rejects.toMatchObject({ reason: "not sent" });
});

test("data of a wrong type rejects, and no promise of this package is an unhandled rejection", async () => {
  const hub = await hubOf();
  const topics = topicsOf(hub.url);
  const wrong = { topic: "t", data: 7 as never };
  await expect(topics.publish("t", 7 as never)).rejects.toMatchObject({ code: "options" });
  await expect(topics.publishMany([wrong])).rejects.toMatchObject({ code: "options" });
  // Vitest fails if one of these is unhandled.
  void topics.publishMany([wrong]);
  void topics.publish("no topic", "m");
  void topics.subscribe("t").next();
  await topics.close();
  void topics.publish("t", "m");
  void topics.subscribe("t").next();
  await new Promise((resolve) => setTimeout(resolve, 50));
});

test("closing waits for what is published", async () => {
  const hub = await hubOf("--store", await directory());
  const topics = topicsOf(hub.url);
  const stored = topics.publishMany(numbers(500).map((data) => ({ topic: "t", data })));
  await topics.close();
  expect((await stored).every((it) => !(it instanceof PublishError))).toBe(true);
});

test("a signal ends one subscription, a wait for an answer, or the client", async () => {
  const hub = await hubOf();
  const stop = new AbortController();
  const topics = topicsOf(hub.url);
  const waiting = topics.subscribe("t", { signal: stop.signal }).next();
  await hub.kill();
  const publishing = topics.publish("t", "m", { signal: stop.signal });
  stop.abort();
  await expect(waiting).rejects.toMatchObject({ code: "aborted" });
  await expect(publishing).rejects.toMatchObject({ code: "aborted" });
  const all = new AbortController();
  const other = topicsOf(hub.url, { signal: all.signal });
  const next = other.subscribe("t").next();
  all.abort();
  await expect(next).rejects.toMatchObject({ code: "closed" });
});

test("batches have the same deliveries, and leaving them ends the subscription", async () => {
  const hub = await hubOf();
  const topics = topicsOf(hub.url);
  const all = numbers(5_000);
  await topics.publishMany(all.map((data) => ({ topic: "t", data })));
  const subscription = topics.subscribe("t");
  const got: string[] = [];
  for await (const batch of subscription.batches()) {
    got.push(...batch.map((it) => (it.type === "message" ? `${it.data}` : it.type)));
    if (got.length === all.length) break;
  }
  expect(got).toEqual(all);
  expect(subscription.position).toMatch(/:5000:/);
  expect(topics.stats.subscriptions).toBe(0);
});

test("a reader that prefers fresh over complete is moved ahead, and a gap says so", async () => {
  const hub = await hubOf();
  const topics = topicsOf(hub.url);
  const slow = topics.subscribe("t", { window: 262_144, largestLag: 50, from: "now" });
  await topics.publish("t", "first");
  expect((await slow.next()).value).toMatchObject({ data: "first" });
  const many = numbers(500).map((number) => ({ topic: "t", data: number.padEnd(2_000) }));
  await topics.publishMany(many);
  // By now what waits at the hub is older than the largest lag.
  await new Promise((resolve) => setTimeout(resolve, 200));
  const got: string[] = [];
  for await (const delivery of slow) {
    got.push(delivery.type === "message" ? `${delivery.data}` : delivery.type);
    if (delivery.type !== "gap") continue;
    expect(delivery).toMatchObject({ reason: "moved ahead", through: 501 });
    await topics.publish("t", "fresh", { final: true });
  }
  expect(got.slice(-2)).toEqual(["gap", "fresh"]);
  expect(got.length).toBeLessThan(400);
});

test("a hub that is asked to end and starts again interrupts nothing", async () => {
  const hub = await hubOf("--store", await directory());
  const topics = topicsOf(hub.url);
  const all = textsOf(topics.subscribe("t"));
  for (let round = 0; round < 3; round++) {
    const stored = topics.publishMany(
      numbers(100, 100 * round + 1).map((data) => ({ topic: "t", data })),
    );
    await hub.kill("SIGTERM");
    await hub.start();
    expect((await stored).filter((it) => it instanceof PublishError)).toEqual([]);
  }
  await topics.publish("t", "end", { final: true });
  expect(await all).toEqual([...numbers(300), "end"]);
});

test("a topic without its final message goes on, and one that is complete ends at once for late readers", async () => {
  const hub = await hubOf();
  const topics = topicsOf(hub.url);
  await topics.publish("done", "1");
  await topics.publish("done", "2", { final: true });
  expect(await textsOf(topics.subscribe("done"))).toEqual(["1", "2"]);
  // A pattern does not end with one of its topics.
  const open = topics.subscribe("*");
  expect(await textsOf(open, 2)).toEqual(["1", "2"]);
  const waiting = topics.subscribe("*", { from: "now" });
  const next = waiting.next();
  await topics.publish("other", "3");
  expect((await next).value).toMatchObject({ topic: "other", data: "3" });
});
