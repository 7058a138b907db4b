import { text, utf8 } from "./bytes.ts";
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

/** The codes of protocol errors: SPEC.md, section 15. */
export const MALFORMED = 1;
export const UNKNOWN_KIND = 2;
export const UNEXPECTED = 3;
export const SEQUENCE_GAP = 4;
export const SEQUENCE_EXHAUSTED = 5;
export const CREDIT_EXCEEDED = 6;
export const INVALID_ACK = 7;
export const MESSAGE_TOO_LARGE = 8;
export const INVALID_TEXT = 9;
export const INCONSISTENT = 10;
export const CLOSE_TIMEOUT = 11;
export const APPLICATION = 12;

/** The peer broke the protocol. Its code says how: words for each would be a tenth of the package. */
export class Violation {
  readonly code: number;

  constructor(code: number) {
    this.code = code;
  }
}

export const malformed = (): Violation => new Violation(MALFORMED);

export type Field = bigint | number | string | Uint8Array;

/** A packet: its kind, and its fields in the order of SPEC.md. Integers of 64 bits are exact when read. */
export type Packet = [kind: number, ...fields: Field[]];

/**
 * The fields after the kind. `b` 16 bytes, `n` a u64, `g` a u64 that is not 0, `l` a largest message, `m`
 * milliseconds, `h` a u16, `o` a u8, `t` text up to the end.
 */
const LAYOUT: Record<number, string> = {
  [HELLO]: "bbngnnnl",
  [WELCOME]: "bggnnnlm",
  [REJECT]: "om",
  [DATA]: "g",
  [ACK]: "n",
  [CREDIT]: "n",
  [BLOCKED]: "n",
  [PING]: "n",
  [PONG]: "n",
  [CLOSE]: "nmht",
  [END]: "",
  [ABORT]: "ht",
  [GOAWAY]: "mt",
};

/**
 * Reads a packet. One with a kind from 0x80 on is to be ignored, and has no fields. The records of DATA are
 * not among its fields: they follow from {@link limits.DATA_HEADER} on.
 */
export function decode(bytes: Uint8Array): Packet {
  const kind = bytes[0]!;
  if (kind >= 0x80) return [kind];
  const layout = LAYOUT[kind];
  const { length } = bytes;
  if (!length || length > limits.MAX_PACKET) throw malformed();
  if (layout === undefined) throw new Violation(UNKNOWN_KIND);
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  const packet: Packet = [kind];
  let at = 1;
  for (const form of layout) {
    const size = { b: 16, h: 2, o: 1, t: length - at }[form] ?? 8;
    if (at + size > length) throw malformed();
    packet.push(readField(form, view, bytes, at, size));
    at += size;
  }
  if (kind === DATA ? at === length : at < length) throw malformed();
  return packet;
}

function readField(form: string, view: DataView, bytes: Uint8Array, at: number, size: number): Field {
  if (size === 1 && form === "o") return bytes[at]!;
  if (form === "h") return view.getUint16(at);
  if (form === "b") return bytes.slice(at, at + size);
  if (form === "t") {
    const reason = text(bytes.subarray(at));
    if (size > limits.MAX_REASON || reason === undefined) throw malformed();
    return reason;
  }
  const value = view.getBigUint64(at);
  if (
    (form === "g" && !value) ||
    (form === "m" && value > limits.MAX_MILLIS) ||
    (form === "l" && (value < limits.MIN_LARGEST_MESSAGE || value > limits.MAX_LARGEST_MESSAGE))
  ) {
    throw malformed();
  }
  return value;
}

/** Writes a packet, but for the records of DATA. */
export function encode([kind, ...fields]: Packet): Uint8Array {
  const bytes = [kind];
  fields.forEach((field, index) => {
    if (typeof field === "string") bytes.push(...cutReason(field));
    else if (field instanceof Uint8Array) bytes.push(...field);
    else {
      const size = { h: 2, o: 1 }[LAYOUT[kind]![index]!] ?? 8;
      for (let shift = 8 * (size - 1); shift >= 0; shift -= 8) {
        bytes.push(Number((BigInt(field) >> BigInt(shift)) & 0xffn));
      }
    }
  });
  return Uint8Array.from(bytes);
}

/** The longest beginning of a reason that fits into a packet, cut between characters. */
function cutReason(reason: string): Uint8Array {
  const bytes = utf8(reason);
  let end = Math.min(bytes.length, limits.MAX_REASON);
  while ((bytes[end]! & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end);
}
