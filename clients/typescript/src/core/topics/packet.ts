/** The packets of a node, and those of a client: SPEC-TOPICS.md, section 4. */

import { utf8 } from "../bytes.ts";
import { add, Fields, type Int, must, packet as packetOf, u32, unhex } from "./bytes.ts";
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
  | {
      readonly kind: "SUBSCRIBED";
      readonly after: Int;
      readonly time: Int;
      readonly end: Int;
      readonly endTime: Int;
    }
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

/** The packets of a node by their kind: the name, and the fields with their forms. */
const LAYOUT: Record<number, string> = {
  2:
    "WELCOME log:id first:offset last:offset largestMessage:int publishWindow:int once:millis " +
    "subscriptions:u32 durability:durability name:text",
  3: "REJECT reason:rejection retryAfter:millis text:text",
  20: "PING number:int",
  21: "PONG number:int",
  26: "ABORT code:u16 text:text",
  27: "GOAWAY window:millis text:text",
  33: "SUBSCRIBED subscription:u32 after:offset time:offset end:offset endTime:offset",
  34: "MESSAGES subscription:u32 records:rest",
  35: "GAP subscription:u32 reason:gap certain:flag after:offset through:offset",
  36: "CAUGHT_UP subscription:u32 offset:offset time:offset",
  39: "ENDED subscription:u32 reason:ending text:text",
  49: "PUBLISHED durability:durability first:number runs:runs",
  50: "REFUSED number:number reason:refusal text:text",
};

/** How a form is read. The records of MESSAGES are read later. */
const FORMS: Record<string, (fields: Fields) => unknown> = {
  id: (it) => it.id(),
  int: (it) => it.int(),
  u16: (it) => it.u16(),
  u32: (it) => it.u32(),
  text: (it) => it.text(),
  millis: (it) => it.millis(),
  offset: (it) => it.offset(),
  number: (it) => atLeastOne(it.int()),
  flag: (it) => it.one([false, true], 0),
  rejection: (it) => it.one(REJECTIONS, 1),
  gap: (it) => it.one(GAPS, 1),
  ending: (it) => it.one(ENDINGS, 1),
  refusal: (it) => it.one(REFUSALS, 1),
  durability: (it) => it.one(DURABILITIES, 0),
  runs: readRuns,
  rest: (it) => new Fields(it.rest()),
};

/** The kinds that only a client sends. */
const OF_CLIENTS = [0x01, 0x04, 0x20, 0x25, 0x26, 0x30];

/** A packet of a node. Nothing if it is of a kind that is to be ignored. */
export function decode(bytes: Uint8Array): Packet | undefined {
  must(bytes.length > 0 && bytes.length <= MAX_PACKET);
  const reader = new Fields(bytes);
  const number = reader.u8();
  const layout = LAYOUT[number];
  if (!layout) {
    must(number >= 0x80, OF_CLIENTS.includes(number) ? "UNEXPECTED" : "UNKNOWN_KIND");
    return undefined;
  }
  const [kind, ...fields] = layout.split(" ");
  const values: Record<string, unknown> = { kind };
  for (const field of fields) {
    const [name, form] = field.split(":") as [string, string];
    values[name] = FORMS[form]!(reader);
  }
  reader.check();
  must(reader.left === 0);
  const packet = values as unknown as Packet;
  if (packet.kind === "WELCOME") checkWelcome(packet);
  if (packet.kind === "PUBLISHED")
    must(packet.runs.reduce((next, [count]) => add(next, count), packet.first) <= 1n << 64n);
  return packet;
}

function atLeastOne(value: Int): Int {
  must(value !== 0);
  return value;
}

function checkWelcome(welcome: Welcome): void {
  const { first, last, largestMessage, publishWindow, subscriptions } = welcome;
  must(first >= 1 && first <= add(last, 1));
  must(largestMessage >= MIN_LARGEST_MESSAGE && largestMessage <= MAX_LARGEST_MESSAGE);
  must(publishWindow >= MIN_PUBLISH_WINDOW && subscriptions > 0);
}

function readRuns(fields: Fields): [Int, Int][] {
  const runs: [Int, Int][] = [];
  do {
    const [count, offset] = [atLeastOne(fields.count()), fields.count()];
    fields.check();
    must(add(offset, count) <= OFFSETS);
    runs.push([count, offset]);
  } while (fields.left > 0);
  return runs;
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
    case "latest":
      writer.u8(4).raw(unhex(start.log)).u64(start.end).u64(start.time).u64(start.offset);
      break;
    case "last":
      writer.u8(3).u64(start.count);
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
