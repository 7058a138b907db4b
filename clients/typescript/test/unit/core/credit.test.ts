import { expect, test } from "vitest";
import { Inbox } from "../../../src/core/inbox.ts";
import { MIN_WINDOW, settled } from "../../../src/core/limits.ts";
import { Outbox } from "../../../src/core/outbox.ts";
import { CREDIT_EXCEEDED, Violation } from "../../../src/core/packet.ts";

/** Packets whose messages cost exactly that much together. */
function packets(cost: number): Uint8Array[] {
  const outbox = new Outbox(2 ** 24);
  for (let left = cost; left > 0; left -= 1000) {
    // What is left over is no less than the cost of an empty message.
    const size = left >= 1064 ? 936 : left - 64;
    outbox.push(0, new Uint8Array(size));
    if (left < 1064) break;
  }
  const all: Uint8Array[] = [];
  while (outbox.nextEnd > 0) all.push(outbox.transmit());
  return all;
}

function accept(cost: number): Inbox {
  const inbox = new Inbox(settled({ window: MIN_WINDOW }));
  for (const packet of packets(cost)) {
    inbox.accept(packet, Number(new DataView(packet.buffer, packet.byteOffset).getBigUint64(1)));
  }
  return inbox;
}

test("credit may be used to its last byte, and not beyond", () => {
  expect(accept(MIN_WINDOW).untaken).toBe(MIN_WINDOW);
  let violation: unknown;
  try {
    accept(MIN_WINDOW + 1);
  } catch (error) {
    violation = error;
  }
  expect(violation).toBeInstanceOf(Violation);
  expect((violation as Violation).code).toBe(CREDIT_EXCEEDED);
});

test("a view of a packet is not kept for messages that cost nothing: duplicates", () => {
  const outbox = new Outbox(2 ** 24);
  outbox.push(0, new Uint8Array(30_000));
  outbox.push(0, new Uint8Array([1, 2, 3]));
  const both = outbox.transmit();
  const first = new Outbox(2 ** 24);
  first.push(0, new Uint8Array(30_000));
  const inbox = new Inbox(settled());
  inbox.accept(first.transmit(), 1);
  inbox.accept(both, 1);
  inbox.pop();
  const [message] = inbox.pop()!.messages;
  expect(message).toEqual(new Uint8Array([1, 2, 3]));
  expect((message as Uint8Array).buffer.byteLength).toBeLessThan(100);
  expect(inbox.duplicates).toBe(1);
});

test("the place behind each message counts the bytes of its text, not its characters", () => {
  const messages = ["gr\u00fcn \u{1f331}", "ascii", new Uint8Array(7), "\u20ac"];
  const outbox = new Outbox(2 ** 24);
  for (const it of messages) {
    if (typeof it === "string") outbox.push(1, new TextEncoder().encode(it));
    else outbox.push(0, it);
  }
  const inbox = new Inbox(settled());
  inbox.accept(outbox.transmit(), 1);
  const batch = inbox.pop()!;
  expect(batch.messages).toEqual(messages);
  const ends = [0, 1, 2, 3, 4].map((count) => batch.after(count));
  expect(ends).toEqual([
    { seq: 0, offset: 0 },
    { seq: 1, offset: 74 },
    { seq: 2, offset: 143 },
    { seq: 3, offset: 214 },
    { seq: 4, offset: 281 },
  ]);
});
