import { expect, test } from "vitest";
import { hasNats, nats } from "../support/nats.ts";
import { closeBehindEach, hubOf, numbers, textsOf, topicsOf } from "../support/topics.ts";

closeBehindEach();

test.skipIf(!hasNats)(
  "of two hubs over one NATS one is killed in mid-stream: nothing is lost, doubled or reordered",
  async () => {
    const store = `${await nats()}/LOG`;
    const hubs = [await hubOf("--store", store), await hubOf("--store", store)];
    const topics = topicsOf(hubs.map((it) => it.url));
    const reading = textsOf(topics.subscribe("t"));
    const nodes: string[] = [];
    topics.addEventListener("connected", ({ detail }) => nodes.push(detail.url));
    const count = 6_000;
    const kinds = new Set<string>();
    for (let first = 1; first <= count; first += 500) {
      const all = numbers(500, first).map((data) => ({ topic: "t", data, final: data === `${count}` }));
      const stored = topics.publishMany(all);
      if (first === 2_001) {
        // The one that the client uses, with messages on their way.
        const used = hubs.find((it) => it.url === nodes.at(-1));
        await used?.kill();
      }
      for (const it of await stored) kinds.add(it instanceof Error ? it.message : it.durability);
    }
    expect([...kinds]).toEqual(["on disk later"]);
    expect(await reading).toEqual(numbers(count));
    expect(new Set(nodes).size).toBe(2);
    expect(topics.stats.stored).toBe(count);
    // Another client at the hub that is left reads the same.
    const left = topicsOf(nodes.at(-1)!);
    expect(await textsOf(left.subscribe("t"))).toEqual(numbers(count));
  },
);
