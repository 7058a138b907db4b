import { describe, expect, test } from "vitest";
import { type Int, ProtocolError, packet as writerOf } from "../../../src/core/topics/bytes.ts";
import { isFilter, isTopic, matches } from "../../../src/core/topics/name.ts";
import * as packets from "../../../src/core/topics/packet.ts";
import {
  costOf,
  type Piece,
  readPieces,
  Topics,
  writeRecord,
} from "../../../src/core/topics/records.ts";
import type { Start } from "../../../src/core/topics/start.ts";
import { bytesOf, hex, type Json, readVectors, unhex } from "../../support/vectors.ts";

const vectors = readVectors("topics-packets.json");
const FROM_CLIENTS = ["HELLO", "TOKEN", "SUBSCRIBE", "CREDIT", "UNSUBSCRIBE", "PUBLISH"];
const BOTH = ["PING", "PONG", "ABORT"];

const int = (digits: string): Int => (BigInt(digits) <= 2n ** 53n ? Number(digits) : BigInt(digits));
const nameOf = (value: string | Json) =>
  typeof value === "string" ? value : new TextDecoder().decode(unhex(value.hex));

/** The record before the packet, if it begins within a message. */
function before(vector: Json): Piece | undefined {
  if (!vector.within) return undefined;
  const { text: isText, final: isFinal } = vector.within;
  const payload = new Uint8Array(1);
  return { isText, isFinal, continues: true, offset: 1, time: 0, topic: "t", payload, cost: 65 };
}

const payloadOf = (record: Json) =>
  record.repeat ? new Uint8Array(record.repeat.length).fill(record.repeat.byte) : unhex(record.payload);

function decoded(vector: Json): Json | undefined {
  const packet = packets.decode(bytesOf(vector));
  if (packet?.kind !== "MESSAGES") return packet;
  const { kind, subscription } = packet;
  return { kind, subscription, records: readPieces(packet.records, new Topics(">"), before(vector)) };
}

/** What {@link decoded} gives for the fields of a vector. */
function fieldsOf(fields: Json): Json {
  const { kind, subscription, text } = fields;
  const of = (...names: string[]) => Object.fromEntries(names.map((name) => [name, int(fields[name])]));
  switch (kind) {
    case "WELCOME":
      return {
        ...{ kind, log: fields.log, ...of("first", "last"), once: Number(fields.once) },
        ...{ largestMessage: Number(fields.largest_message), publishWindow: int(fields.publish_window) },
        ...{ subscriptions: fields.subscriptions, name: fields.name },
        durability: packets.DURABILITIES[fields.durability],
      };
    case "REJECT": {
      const reason = packets.REJECTIONS[fields.reason - 1];
      return { kind, reason, retryAfter: Number(fields.retry_after), text };
    }
    case "PING":
    case "PONG":
      return { kind, ...of("number") };
    case "ABORT":
      return { kind, code: fields.code, text };
    case "GOAWAY":
      return { kind, window: Number(fields.window), text };
    case "SUBSCRIBED":
      return { kind, subscription, ...of("after", "time", "end"), endTime: int(fields.end_time) };
    case "CAUGHT_UP":
      return { kind, subscription, ...of("offset", "time") };
    case "GAP": {
      const reason = packets.GAPS[fields.reason - 1];
      return { kind, subscription, reason, certain: fields.certain === 1, ...of("after", "through") };
    }
    case "ENDED":
      return { kind, subscription, reason: packets.ENDINGS[fields.reason - 1], text };
    case "PUBLISHED": {
      const runs = fields.runs.map((run: Json) => [int(run.count), int(run.offset)]);
      return { kind, durability: packets.DURABILITIES[fields.durability], ...of("first"), runs };
    }
    case "REFUSED":
      return { kind, ...of("number"), reason: packets.REFUSALS[fields.reason - 1], text };
    default:
      return { kind, subscription, records: fields.records.map(pieceOf) };
  }
}

function pieceOf(record: Json): Json {
  const payload = payloadOf(record);
  const { text: isText, continues, final: isFinal, topic = "" } = record;
  const [offset, time] = [int(record.offset ?? "0"), int(record.time ?? "0")];
  const cost = payload.length + Buffer.from(topic).length + 64;
  return { isText, continues, isFinal, offset, time, topic, payload, cost };
}

/** The bytes of a packet of a client, from the fields of a vector. */
function encoded(fields: Json): Uint8Array {
  switch (fields.kind) {
    case "HELLO":
      return packets.hello({
        publisher: fields.publisher,
        epoch: int(fields.epoch),
        largestMessage: Number(fields.largest_message),
        token: tokenOf(fields.token),
      });
    case "TOKEN":
      return packets.token(tokenOf(fields.token));
    case "PING":
      return packets.ping(int(fields.number));
    case "PONG":
      return packets.pong(int(fields.number));
    case "ABORT":
      return packets.abort(fields.code, fields.text);
    case "CREDIT":
      return packets.credit(fields.subscription, int(fields.credit));
    case "UNSUBSCRIBE":
      return packets.unsubscribe(fields.subscription);
    default:
      return packets.subscribe({
        subscription: fields.subscription,
        credit: int(fields.credit),
        largestLag: Number(fields.largest_lag),
        start: startOf(fields.start),
        filter: nameOf(fields.filter),
      });
  }
}

const tokenOf = (token: string | Json) =>
  typeof token === "string" ? token : token.repeat.text.repeat(token.repeat.times);

function startOf(start: Json): Start {
  const { name, log } = start;
  if (name === "last") return { name, count: Number(start.count) };
  if (name === "since") return { name, time: int(start.time) };
  if (name === "after") return { name, log, offset: int(start.offset), time: int(start.time) };
  if (name === "latest") {
    const [end, time, offset] = [int(start.end), int(start.time), int(start.offset)];
    return { name, log, end, time, offset };
  }
  return { name };
}

/** The bytes of PUBLISH of whole messages. */
function published(fields: Json): Uint8Array {
  const writer = writerOf(0x30).u64(int(fields.first));
  for (const record of fields.records) {
    const topic = new Uint8Array(Buffer.from(nameOf(record.topic)));
    const message = { topic, payload: payloadOf(record), isText: record.text, isFinal: record.final };
    expect(costOf(message)).toBe(message.payload.length + topic.length + 64);
    writeRecord(writer, message, 0);
  }
  return writer.done();
}

/** What a client never sends: bytes that are not UTF-8, and pieces that it cuts elsewhere. */
function isSent(fields: Json): boolean {
  if (fields.kind === "SUBSCRIBE") return !fields.filter.hex?.endsWith("ff");
  if (fields.kind !== "PUBLISH") return FROM_CLIENTS.includes(fields.kind) || BOTH.includes(fields.kind);
  return fields.records.every(
    (it: Json) => it.topic !== undefined && !it.continues && !it.topic.hex?.endsWith("ff"),
  );
}

describe("packets of a node are read as the vectors say", () => {
  const read = vectors.valid.filter(({ packet }: Json) => !FROM_CLIENTS.includes(packet.kind));
  expect(read.length).toBeGreaterThan(50);
  for (const vector of read) {
    test(vector.name, () => {
      const { packet } = vector;
      const expected = typeof packet.kind === "number" ? undefined : fieldsOf(packet);
      expect(decoded(vector)).toEqual(expected);
    });
  }
});

describe("packets of a client are written as the vectors say", () => {
  const sent = vectors.valid.filter(({ packet }: Json) => isSent(packet));
  expect(sent.length).toBeGreaterThan(35);
  for (const vector of sent) {
    test(vector.name, () => {
      const { packet } = vector;
      const bytes = packet.kind === "PUBLISH" ? published(packet) : encoded(packet);
      expect(hex(bytes)).toBe(vector.shortest ?? hex(bytesOf(vector)));
    });
  }
});

describe("a packet that is malformed is refused with the error of the vectors", () => {
  for (const vector of vectors.malformed) {
    test(vector.name, () => {
      const kind = bytesOf(vector)[0] ?? 0;
      const isOfClients = [0x01, 0x04, 0x20, 0x25, 0x26, 0x30].includes(kind);
      const error = isOfClients ? "UNEXPECTED" : vector.error;
      expect(codeOf(() => decoded(vector))).toBe(error);
    });
  }
});

function codeOf(deed: () => unknown): string {
  try {
    deed();
  } catch (error) {
    if (error instanceof ProtocolError) return error.code;
    throw error;
  }
  return "no error";
}

test("names and filters are valid as the vectors say", () => {
  const { topics, no_topics, filters, no_filters } = vectors.names;
  // What is not UTF-8 has no form as a string.
  const strings = (all: (string | Json)[]) => all.filter((it) => typeof it === "string") as string[];
  for (const name of strings(topics)) expect(isTopic(name), name).toBe(true);
  for (const name of strings(no_topics)) expect(isTopic(name), name).toBe(false);
  for (const name of strings(filters)) expect(isFilter(name), name).toBe(true);
  for (const name of strings(no_filters)) expect(isFilter(name), name).toBe(false);
});

test("half a surrogate pair is in no name: it would become another one on the way", () => {
  expect(isTopic("a\ud800")).toBe(false);
  expect(isFilter("*.\udc00")).toBe(false);
  expect(isTopic("😀")).toBe(true);
});

test("filters match topics as the vectors say", () => {
  for (const { filter, topic, matches: expected } of vectors.matches)
    expect(matches(filter, topic), `${filter} and ${topic}`).toBe(expected);
});
