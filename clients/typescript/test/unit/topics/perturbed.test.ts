import { expect, test } from "vitest";
import { seeded } from "../../support/proxy.ts";
import { Walk } from "../../support/topics-walk.ts";
import { type Json, readVectors, unhex } from "../../support/vectors.ts";

/** Exchanges whose packets are all short enough to be in the file with every byte. */
const exchanges = (readVectors("topics-exchanges.json") as Json[]).filter(({ steps }) =>
  steps.every((step: Json) => (step.packets ?? []).every((it: unknown) => typeof it === "string")),
);
const ROUNDS = 40;

/** The packet with a few bytes changed, cut off, or made longer. */
function perturbed(hex: string, random: () => number): Uint8Array {
  const bytes = unhex(hex);
  const upTo = (most: number) => Math.floor(random() * most);
  switch (upTo(4)) {
    case 0:
      return bytes.subarray(0, upTo(bytes.length + 1));
    case 1:
      return new Uint8Array([...bytes, ...new Uint8Array(upTo(20)).map(() => upTo(256))]);
    default:
      for (let times = 0; times <= upTo(3); times++) bytes[upTo(bytes.length)] = upTo(256);
      return bytes;
  }
}

test("a node that sends anything gets an answer by the protocol, and the client goes on with the next one", () => {
  const random = seeded(42);
  let refused = 0;
  let handled = 0;
  for (let round = 0; round < ROUNDS; round++) {
    for (const exchange of exchanges) {
      const walk = new Walk(exchange.client);
      for (const step of exchange.steps) {
        if (step.do !== "carry" || step.from !== "server") {
          // What the client sends and says may differ by now. It must not throw.
          if (step.of === undefined || walk.subscriptions.has(step.of)) walk.do(step);
          continue;
        }
        for (const packet of step.packets) {
          const bytes = random() < 0.3 ? perturbed(packet, random) : unhex(packet);
          const error = walk.core.handle(walk.now, bytes);
          handled++;
          if (!error) continue;
          refused++;
          // It owes the reason, and nothing else.
          expect(walk.core.closeCode).toBe(1002);
          expect(walk.core.transmit(walk.now)?.[0]).toBe(0x1a);
          expect(walk.core.transmit(walk.now)).toBeUndefined();
          walk.core.attach(walk.now);
          expect(walk.core.transmit(walk.now)?.[0]).toBe(0x01);
        }
        walk.core.takeEvents();
      }
    }
  }
  expect(exchanges.length).toBeGreaterThan(100);
  expect(handled).toBeGreaterThan(10_000);
  expect(refused).toBeGreaterThan(2_000);
});
