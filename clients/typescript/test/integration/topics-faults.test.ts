import { expect, test } from "vitest";
import { FaultProxy, seeded } from "../support/proxy.ts";
import {
  closeBehindEach,
  directory,
  hubOf,
  numbers,
  opened,
  textsOf,
  topicsOf,
} from "../support/topics.ts";

closeBehindEach();

async function proxyOf(port: number): Promise<FaultProxy> {
  const proxy = await FaultProxy.start(port);
  opened.push(() => proxy.stop());
  return proxy;
}

for (const seed of [1, 2, 3]) {
  test(`with connections cut at seeded bytes everything is stored and delivered once: seed ${seed}`, async () => {
    const hub = await hubOf("--store", await directory());
    const proxy = await proxyOf(hub.port);
    const random = seeded(seed);
    proxy.nextLimit = () => Math.floor(random() * 200_000);
    // What has no answer is sent again on each connection, and has to fit into some of them.
    const topics = topicsOf(`${proxy.url}/topics`, { publishWindow: 65_536 });
    const all = textsOf(topics.subscribe("t"));
    const sent = numbers(10_000).map((number) => number.padEnd(Math.floor(random() * 200)));
    // Some are longer than a record, and are cut between their pieces.
    for (let at = 100; at < sent.length; at += 1_000) sent[at] = `${at}`.padEnd(90_000);
    await topics.publishMany(sent.map((data) => ({ topic: "t", data })));
    proxy.nextLimit = () => Number.POSITIVE_INFINITY;
    await topics.publish("t", "end", { final: true });
    expect(await all).toEqual([...sent, "end"]);
    expect(proxy.cuts).toBeGreaterThan(10);
    // What the log has is what was published, and each once.
    expect(await textsOf(topics.subscribe("t"))).toEqual([...sent, "end"]);
  });
}

test("a network that fails without a sign is noticed, and the client goes on elsewhere", async () => {
  const hub = await hubOf();
  const [one, two] = [await proxyOf(hub.port), await proxyOf(hub.port)];
  const urls = [one, two].map(({ url }) => `${url}/topics`);
  const topics = topicsOf(urls, { pingInterval: 100, silenceTimeout: 400 });
  const subscription = topics.subscribe("t");
  await topics.publish("t", "1");
  expect((await subscription.next()).value).toMatchObject({ data: "1" });
  (one.connections > 0 ? one : two).freeze();
  await topics.publish("t", "2", { final: true });
  expect(await textsOf(subscription)).toEqual(["2"]);
  expect([one.connections, two.connections]).toEqual([1, 1]);
});

test("100,000 messages reach a consumer that stops and goes, and wait within its window", async () => {
  const hub = await hubOf("--store", await directory());
  const proxy = await proxyOf(hub.port);
  const topics = topicsOf(`${proxy.url}/topics`);
  const window = 262_144;
  const subscription = topics.subscribe("t", { window });
  const count = 100_000;
  const publishing = topics.publishMany(numbers(count).map((data) => ({ topic: "t", data })));
  const random = seeded(7);
  let most = 0;
  for (let expected = 1; expected <= count; expected++) {
    const { value } = await subscription.next();
    if (value?.type !== "message" || value.data !== `${expected}`)
      throw new Error(`expected ${expected}, and got ${JSON.stringify(value)}`);
    most = Math.max(most, subscription.stats.waitingBytes);
    if (expected % 5_000 !== 0) continue;
    await new Promise((resolve) => setTimeout(resolve, random() * 30));
    if (expected % 20_000 === 0) proxy.cut();
  }
  expect(most).toBeLessThanOrEqual(window);
  expect(most).toBeGreaterThan(window / 2);
  expect((await publishing).length).toBe(count);
  expect(topics.stats.stored).toBe(count);
  expect(proxy.cuts).toBeGreaterThan(0);
});
