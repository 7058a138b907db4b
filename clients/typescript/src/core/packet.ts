import { Reader, text, utf8, Writer } from "./bytes.ts";
import * as limits from "./limits.ts";

/** The kinds of packets: SPEC.md, section 3. */
export const HELLO = 0x01;
export const WELCOME = 0x02;
export const REJECT = 0x03;
export const DATA = 0x10;
export const ACK = 0x11;
export const CREDIT = 0x12;
export const BLOCKED = 0x13;
export const PING = 0x14;
export const PONG = 0x15;
export const CLOSE = 0x18;
export const END = 0x19;
export const ABORT = 0x1a;
export const GOAWAY = 0x1b;

/** The names of protocol errors: SPEC.md, section 15. Their code is their place here, from 1. */
export const CODES = [
  "MALFORMED",
  "UNKNOWN_KIND",
  "UNEXPECTED",
  "SEQUENCE_GAP",
  "SEQUENCE_EXHAUSTED",
  "CREDIT_EXCEEDED",
  "INVALID_ACK",
  "MESSAGE_TOO_LARGE",
  "INVALID_TEXT",
  "INCONSISTENT",
] as const;
export type Code = (typeof CODES)[number];
export const CLOSE_TIMEOUT = 11;
export const APPLICATION = 12;

/** The peer broke the protocol. */
export class Violation extends Error {
  readonly code: Code;

  constructor(code: Code, why: string) {
    super(why);
    this.code = code;
  }
}

export const malformed = (why: string): Violation => new Violation("MALFORMED", why);

/** A packet and its fields, as SPEC.md names them. Integers of 64 bits are exact when it was read. */
export interface Packet {
  kind: number;
  session_id?: Uint8Array;
  token?: Uint8Array;
  epoch?: bigint | number;
  generation?: bigint | number;
  received?: bigint | number;
  acked?: bigint | number;
  credit?: bigint | number;
  largest_message?: bigint | number;
  life?: bigint | number;
  retry_after?: bigint | number;
  first?: bigint | number;
  seq?: bigint | number;
  offset?: bigint | number;
  number?: bigint | number;
  last?: bigint | number;
  deadline?: bigint | number;
  window?: bigint | number;
  code?: number;
  /** Of REJECT a number, else text. */
  reason?: number | string;
  /** Of DATA: its records, encoded. */
  records?: Uint8Array;
}

/**
 * The fields after the kind. `b` 16 bytes, `n` a u64, `m` milliseconds, `h` a u16, `o` a u8, `t` text up to
 * the end, `r` records up to the end.
 */
const LAYOUT: Record<number, string> = {
  [HELLO]: "b:session_id b:token n:epoch n:generation n:received n:acked n:credit n:largest_message",
  [WELCOME]: "b:token n:epoch n:generation n:received n:acked n:credit n:largest_message m:life",
  [REJECT]: "o:reason m:retry_after",
  [DATA]: "n:first r:records",
  [ACK]: "n:seq",
  [CREDIT]: "n:offset",
  [BLOCKED]: "n:offset",
  [PING]: "n:number",
  [PONG]: "n:number",
  [CLOSE]: "n:last m:deadline h:code t:reason",
  [END]: "",
  [ABORT]: "h:code t:reason",
  [GOAWAY]: "m:window t:reason",
};

const fieldsOf = (kind: number) => LAYOUT[kind]!.split(" ").filter(Boolean);

function readField(reader: Reader, form: string): bigint | number | string | Uint8Array {
  switch (form) {
    case "b":
      return reader.take(16);
    case "o":
      return reader.u8();
    case "h":
      return reader.u16();
    case "r":
      if (reader.left === 0) throw malformed("DATA without records");
      return reader.rest();
    case "t": {
      const bytes = reader.rest();
      const reason = text(bytes);
      if (bytes.length > limits.MAX_REASON || reason === undefined) {
        throw malformed("a reason that is too long, or not UTF-8");
      }
      return reason;
    }
    default: {
      const value = reader.u64();
      if (form === "m" && value > limits.MAX_MILLIS) throw malformed("a time of more than ten years");
      return value;
    }
  }
}

/** Reads a packet. One with a kind from 0x80 on is to be ignored, and has no fields. */
export function decode(bytes: Uint8Array): Packet {
  const kind = bytes[0];
  if (kind === undefined || bytes.length > limits.MAX_PACKET) {
    throw malformed("an empty packet, or one that is too long");
  }
  if (kind >= 0x80) return { kind };
  if (LAYOUT[kind] === undefined) throw new Violation("UNKNOWN_KIND", `the kind ${kind}`);
  const packet: Packet = { kind };
  const reader = new Reader(bytes, 1);
  for (const field of fieldsOf(kind)) {
    Object.assign(packet, { [field.slice(2)]: readField(reader, field[0]!) });
  }
  if (reader.failed || reader.left > 0)
    throw malformed("a packet that is too short or too long for its kind");
  const { epoch, generation, largest_message: largest, first } = packet;
  if (
    (kind === WELCOME && !epoch) ||
    generation === 0n ||
    first === 0n ||
    (largest !== undefined &&
      (largest < limits.MIN_LARGEST_MESSAGE || largest > limits.MAX_LARGEST_MESSAGE))
  ) {
    throw malformed("a field that is out of its range");
  }
  return packet;
}

export function encode(packet: Packet): Uint8Array {
  const writer = new Writer().u8(packet.kind);
  for (const field of fieldsOf(packet.kind)) {
    const value = packet[field.slice(2) as keyof Packet]!;
    switch (field[0]) {
      case "o":
        writer.u8(value as number);
        break;
      case "h":
        writer.u16(value as number);
        break;
      case "b":
      case "r":
        writer.raw(value as Uint8Array);
        break;
      case "t":
        writer.raw(cutReason(value as string));
        break;
      default:
        writer.u64(value as number);
    }
  }
  return writer.done();
}

/** The longest beginning of a reason that fits into a packet, cut between characters. */
function cutReason(reason: string): Uint8Array {
  const bytes = utf8(reason);
  let end = Math.min(bytes.length, limits.MAX_REASON);
  while (end < bytes.length && end > 0 && (bytes[end]! & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end);
}
