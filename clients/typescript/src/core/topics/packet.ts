/** The packets of a node, and those of a client: SPEC-TOPICS.md, section 4. */

import { utf8 } from "../bytes.ts";
import {
  add,
  type Code,
  Fields,
  type Int,
  malformed,
  ProtocolError,
  packet as packetOf,
  u32,
  unhex,
} from "./bytes.ts";
import {
  MAX_LARGEST_MESSAGE,
  MAX_PACKET,
  MAX_TEXT,
  MIN_LARGEST_MESSAGE,
  MIN_PUBLISH_WINDOW,
  OFFSETS,
} from "./limits.ts";
import type { Start } from "./start.ts";

/** Why a node rejects a client. */
export const REJECTIONS = ["not allowed", "full", "unavailable"] as const;
/** Why messages are or may be missing. */
export const GAPS = [
  "removed",
  "another log",
  "diverged",
  "moved ahead",
  "too large",
  "damaged",
] as const;
/** Why a message is not stored. */
export const REFUSALS = [
  "not allowed",
  "invalid topic",
  "too large",
  "full",
  "fenced",
  "expired",
  "unknown",
  "unavailable",
] as const;
/** Why a subscription is over. */
export const ENDINGS = [
  "unsubscribed",
  "final",
  "not allowed",
  "expired",
  "invalid filter",
  "too many subscriptions",
  "unavailable",
] as const;
/** How safe a stored message is. */
export const DURABILITIES = [
  "in memory",
  "on disk",
  "in memory of a quorum",
  "on the disks of a quorum",
  "on disk later",
] as const;

export type Rejection = (typeof REJECTIONS)[number];
export type GapReason = (typeof GAPS)[number];
export type Refusal = (typeof REFUSALS)[number];
export type Ending = (typeof ENDINGS)[number];
export type Durability = (typeof DURABILITIES)[number];

export interface Welcome {
  readonly log: string;
  readonly first: Int;
  readonly last: Int;
  readonly largestMessage: number;
  readonly publishWindow: Int;
  readonly once: number;
  readonly subscriptions: number;
  readonly durability: Durability;
  readonly name: string;
}

/** A packet of a subscription. The records of MESSAGES are still to be read. */
export type OfSubscription = { readonly subscription: number } & (
  | { readonly kind: "SUBSCRIBED"; readonly after: Int; readonly time: Int; readonly end: Int }
  | { readonly kind: "MESSAGES"; readonly records: Fields }
  | {
      readonly kind: "GAP";
      readonly reason: GapReason;
      readonly certain: boolean;
      readonly after: Int;
      readonly through: Int;
    }
  | { readonly kind: "CAUGHT_UP"; readonly offset: Int; readonly time: Int }
  | { readonly kind: "ENDED"; readonly reason: Ending; readonly text: string }
);

export type Packet =
  | OfSubscription
  | ({ readonly kind: "WELCOME" } & Welcome)
  | {
      readonly kind: "REJECT";
      readonly reason: Rejection;
      readonly retryAfter: number;
      readonly text: string;
    }
  | { readonly kind: "PING" | "PONG"; readonly number: Int }
  | { readonly kind: "ABORT"; readonly code: number; readonly text: string }
  | { readonly kind: "GOAWAY"; readonly window: number; readonly text: string }
  | {
      readonly kind: "PUBLISHED";
      readonly durability: Durability;
      readonly first: Int;
      readonly runs: readonly (readonly [count: Int, offset: Int])[];
    }
  | {
      readonly kind: "REFUSED";
      readonly number: Int;
      readonly reason: Refusal;
      readonly text: string;
    };

const DECODERS: Record<number, (reader: Fields) => Packet> = {
  2: readWelcome,
  3: (r) => ({
    kind: "REJECT",
    reason: r.one(REJECTIONS, 1),
    retryAfter: r.millis(),
    text: r.text(),
  }),
  20: (r) => ({ kind: "PING", number: r.int() }),
  21: (r) => ({ kind: "PONG", number: r.int() }),
  26: (r) => ({ kind: "ABORT", code: r.u16(), text: r.text() }),
  27: (r) => ({ kind: "GOAWAY", window: r.millis(), text: r.text() }),
  33: (r) => ({
    kind: "SUBSCRIBED",
    subscription: r.u32(),
    after: r.offset(),
    time: r.offset(),
    end: r.offset(),
  }),
  35: readGap,
  36: (r) => ({
    kind: "CAUGHT_UP",
    subscription: r.u32(),
    offset: r.offset(),
    time: r.offset(),
  }),
  39: (r) => ({
    kind: "ENDED",
    subscription: r.u32(),
    reason: r.one(ENDINGS, 1),
    text: r.text(),
  }),
  49: readPublished,
  50: (r) => ({
    kind: "REFUSED",
    number: atLeastOne(r.int()),
    reason: r.one(REFUSALS, 1),
    text: r.text(),
  }),
};

/** The kinds that only a client sends. */
const OF_CLIENTS = [0x01, 0x04, 0x20, 0x25, 0x26, 0x30];

/** A packet of a node. Nothing if it is of a kind that is to be ignored. */
export function decode(bytes: Uint8Array): Packet | undefined {
  if (bytes.length > MAX_PACKET) throw malformed("a packet that is too long");
  const reader = new Fields(bytes);
  const kind = reader.u8();
  reader.check();
  if (kind === 0x22) {
    const subscription = reader.u32();
    reader.check();
    return { kind: "MESSAGES", subscription, records: reader };
  }
  const read = DECODERS[kind];
  if (!read) {
    if (kind >= 0x80) return undefined;
    const code: Code = OF_CLIENTS.includes(kind) ? "UNEXPECTED" : "UNKNOWN_KIND";
    throw new ProtocolError(code, `a packet of the kind ${kind}`);
  }
  const packet = read(reader);
  reader.check();
  if (reader.left > 0) throw malformed("bytes left over");
  return packet;
}

function atLeastOne(value: Int): Int {
  if (value === 0) throw malformed("the number 0");
  return value;
}

function readWelcome(r: Fields): Packet {
  const log = r.id();
  const first = r.offset();
  const last = r.offset();
  const largest = r.int();
  const publishWindow = r.int();
  const once = r.millis();
  const subscriptions = r.u32();
  const durability = r.one(DURABILITIES, 0);
  const name = r.text();
  const isValid =
    first >= 1 &&
    first <= add(last, 1) &&
    largest >= MIN_LARGEST_MESSAGE &&
    largest <= MAX_LARGEST_MESSAGE &&
    publishWindow >= MIN_PUBLISH_WINDOW &&
    subscriptions > 0;
  if (!isValid) throw malformed("a field of WELCOME out of its range");
  const largestMessage = Number(largest);
  const limits = { largestMessage, publishWindow, once, subscriptions };
  return { kind: "WELCOME", log, first, last, ...limits, durability, name };
}

function readGap(r: Fields): Packet {
  const subscription = r.u32();
  const reason = r.one(GAPS, 1);
  const certain = r.one([false, true], 0);
  const [after, through] = [r.offset(), r.offset()];
  return { kind: "GAP", subscription, reason, certain, after, through };
}

function readPublished(r: Fields): Packet {
  const durability = r.one(DURABILITIES, 0);
  const first = atLeastOne(r.int());
  const runs: [Int, Int][] = [];
  let next = first;
  do {
    const [count, offset] = [atLeastOne(r.count()), r.count()];
    r.check();
    next = add(next, count);
    if (next > 1n << 64n || add(offset, count) > OFFSETS)
      throw malformed("a run beyond the largest number");
    runs.push([count, offset]);
  } while (r.left > 0);
  return { kind: "PUBLISHED", durability, first, runs };
}

// What a client sends.

export interface Hello {
  /** 32 hexadecimal digits. All zero: this client publishes without an id. */
  readonly publisher: string;
  readonly epoch: Int;
  readonly largestMessage: number;
  readonly token: string;
}

export function hello(fields: Hello): Uint8Array {
  const writer = packetOf(0x01).raw(unhex(fields.publisher)).u64(fields.epoch);
  return writer.u64(fields.largestMessage).raw(utf8(fields.token)).done();
}

export function token(text: string): Uint8Array {
  return packetOf(0x04).raw(utf8(text)).done();
}

export function ping(number: Int): Uint8Array {
  return packetOf(0x14).u64(number).done();
}

export function pong(number: Int): Uint8Array {
  return packetOf(0x15).u64(number).done();
}

/** The words are cut to what fits. */
export function abort(code: number, why: string): Uint8Array {
  let text = utf8(why);
  for (let length = why.length; text.length > MAX_TEXT; ) text = utf8(why.slice(0, --length));
  return packetOf(0x1a).u16(code).raw(text).done();
}

export interface Subscribe {
  readonly subscription: number;
  readonly credit: Int;
  readonly largestLag: number;
  readonly start: Start;
  readonly filter: string;
}

export function subscribe(fields: Subscribe): Uint8Array {
  const writer = u32(packetOf(0x20, 320), fields.subscription).u64(fields.credit);
  writer.u64(fields.largestLag);
  const { start } = fields;
  switch (start.name) {
    case "beginning":
      writer.u8(0);
      break;
    case "now":
      writer.u8(1);
      break;
    case "after":
      writer.u8(2).raw(unhex(start.log)).u64(start.offset).u64(start.time);
      break;
    case "last":
      writer.u8(3).u64(start.count);
      break;
    case "latest":
      writer.u8(4).raw(unhex(start.log)).u64(start.offset);
      break;
    case "since":
      writer.u8(5).u64(start.time);
  }
  return writer.raw(utf8(fields.filter)).done();
}

export function credit(subscription: number, offset: Int): Uint8Array {
  return u32(packetOf(0x25), subscription).u64(offset).done();
}

export function unsubscribe(subscription: number): Uint8Array {
  return u32(packetOf(0x26), subscription).done();
}
