import { describe, expect, test } from "vitest";
import { utf8 } from "../../../src/core/bytes.ts";
import { u32, unhex, packet as writerOf } from "../../../src/core/topics/bytes.ts";
import { TopicsCore } from "../../../src/core/topics/client.ts";
import { DURABILITIES, ENDINGS, GAPS, REFUSALS } from "../../../src/core/topics/packet.ts";
import { startOf, taken } from "../../support/topics-walk.ts";
import { type Json, payloadAsJson, payloadOf, readVectors } from "../../support/vectors.ts";

const vectors = readVectors("topics-answers.json");
const LOG = "10".repeat(16);

function welcomed(log: Json, publisher = "00".repeat(16), epoch = 0): TopicsCore {
  const core = new TopicsCore({ publisher, epoch, largestMessage: log.largest_message ?? 8 << 20 });
  core.attach(0);
  const last = log.last ?? log.messages?.at(-1)?.offset ?? 0;
  const welcome = writerOf(0x02)
    .raw(unhex(log.id ?? LOG))
    .u64(last + 1)
    .u64(last);
  welcome
    .u64(8 << 20)
    .u64(1 << 20)
    .u64(0);
  expect(core.transmit(0)).toBeDefined();
  expect(core.handle(0, u32(welcome, 10).u8(1).done())).toBeUndefined();
  core.takeEvents();
  return core;
}

/** What a node sends for an answer. */
function packetsOf(answer: Json, log: Json): Uint8Array[] {
  const of = (kind: number) => u32(writerOf(kind), 1);
  if (answer.subscribed !== undefined)
    return [
      of(0x21).u64(answer.subscribed).u64(answer.time).u64(answer.end).u64(answer.end_time).done(),
    ];
  if (answer.gap) {
    const reason = GAPS.indexOf(answer.gap) + 1;
    const places = of(0x23).u8(reason).u8(answer.certain);
    return [places.u64(answer.after).u64(answer.through).done()];
  }
  if (answer.caught_up !== undefined) return [of(0x24).u64(answer.caught_up).u64(answer.time).done()];
  if (answer.ended)
    return [
      of(0x27)
        .u8(ENDINGS.indexOf(answer.ended) + 1)
        .done(),
    ];
  return pieces(log.messages.find((it: Json) => it.offset === answer.message));
}

/** A message in records of 65,536 bytes, each in a packet. */
function pieces(message: Json): Uint8Array[] {
  const data = payloadOf(message);
  const bytes = Buffer.from(data as string);
  const packets = [];
  for (let at = 0; at === 0 || at < bytes.length; at += 65_536) {
    const part = bytes.subarray(at, at + 65_536);
    const continues = at + 65_536 < bytes.length ? 2 : 0;
    const word = (part.length << 3) | (message.final ? 4 : 0) | continues;
    const writer = u32(writerOf(0x22), 1).varint(word | (typeof data === "string" ? 1 : 0));
    const topic = utf8(message.topic ?? "t");
    if (at === 0) writer.varint(message.offset).varint(message.time).u8(topic.length).raw(topic);
    packets.push(writer.raw(part).done());
  }
  return packets;
}

/** What the application gets of the answers. */
function itemsOf(answers: Json[], log: Json): Json[] {
  return answers.flatMap((answer) => {
    if (answer.subscribed !== undefined) return [];
    if (answer.message === undefined) return [answer];
    const message = log.messages.find((it: Json) => it.offset === answer.message);
    const { offset, time, topic = "t", final } = message;
    const payload = payloadAsJson(payloadOf(message));
    return [{ offset, time, topic, ...payload, ...(final ? { final } : {}) }];
  });
}

describe("a client takes every answer of a log, and delivers it", () => {
  for (const vector of vectors.subscriptions) {
    test(vector.name, () => {
      const { log, subscribe: asked, answers } = vector;
      const core = welcomed({ ...log, largest_message: vector.largest_message });
      const options = { largestLag: asked.largest_lag ?? 0, window: 1 << 24 };
      const subscription = core.subscribe(asked.filter, startOf(asked), options);
      expect(core.transmit(0)?.[0]).toBe(0x20);
      for (const answer of answers)
        for (const packet of packetsOf(answer, log)) expect(core.handle(0, packet)).toBeUndefined();
      expect(taken(subscription)).toEqual(itemsOf(answers, log));
    });
  }
});

describe("a publisher learns every answer of a log", () => {
  // A client counts from 1, so it does not get to the largest numbers.
  const reached = vectors.publications.filter(({ steps }: Json) => steps[0].number < 1_000);
  expect(reached.length).toBe(vectors.publications.length - 1);
  for (const vector of reached) {
    test(vector.name, () => {
      for (const { publisher, epoch, number, answer } of vector.steps) {
        // Each step is a publisher of its own, which has come to this number.
        const core = welcomed({ last: vector.last }, publisher, epoch);
        for (let at = 1; at <= number; at++) expect(core.publish("t", "m", false)).toBe(at);
        while (core.transmit(0));
        const skipped = u32(writerOf(0x31).u8(1), 0).u16(0).u16(1);
        if (number > 1)
          core.handle(
            0,
            skipped
              .varint(number - 1)
              .varint(0)
              .done(),
          );
        core.takeEvents();
        const { stored, before, refused } = answer;
        const packet = refused
          ? writerOf(0x32)
              .u64(number)
              .u8(REFUSALS.indexOf(refused) + 1)
          : writerOf(0x31)
              .u8(1)
              .u64(number)
              .varint(1)
              .varint(stored ?? before);
        expect(core.handle(0, packet.done())).toBeUndefined();
        const expected = refused
          ? { type: "refused", number, reason: refused, text: "", mayBeStored: false }
          : { type: "published", number, offset: stored ?? before, durability: DURABILITIES[1] };
        expect(core.takeEvents()).toEqual([expected]);
      }
    });
  }
});
