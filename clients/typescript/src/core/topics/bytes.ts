/** Numbers and bytes of the wire: SPEC-TOPICS.md, section 4. */

import { Reader, text, Writer } from "../bytes.ts";
import { MAX_MILLIS, MAX_TEXT, OFFSETS } from "./limits.ts";

/**
 * A whole number below 2^64. It is a `number` wherever that is exact, and a `bigint` elsewhere. So
 * `===` and `<` work between any two of them.
 */
export type Int = number | bigint;

/** The codes of SPEC.md, section 15, that a client of topics can find. */
export const CODES = {
  MALFORMED: 1,
  UNKNOWN_KIND: 2,
  UNEXPECTED: 3,
  CREDIT_EXCEEDED: 6,
  MESSAGE_TOO_LARGE: 8,
  INVALID_TEXT: 9,
  INCONSISTENT: 10,
  APPLICATION: 12,
} as const;

export type Code = keyof typeof CODES;

/** The node broke the protocol. */
export class ProtocolError extends Error {
  override name = "ProtocolError";
  constructor(
    readonly code: Code,
    why: string = code,
  ) {
    super(why);
  }
}

/** What does not hold is an error of the node. */
export function must(holds: boolean, code: Code = "MALFORMED"): asserts holds {
  if (!holds) throw new ProtocolError(code);
}

export function add(a: Int, b: Int): Int {
  const sum = Number(a) + Number(b);
  return Number.isSafeInteger(sum) ? sum : exact(BigInt(a) + BigInt(b));
}

/** The number in the form of {@link Int}. */
export function exact(value: bigint): Int {
  return value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

/** Reads the fields of a packet. */
export class Fields extends Reader {
  u32(): number {
    return this.u16() * 0x1_0000 + this.u16();
  }

  /** A u64, exactly. */
  int(): Int {
    const { at } = this;
    const value = this.number();
    if (value <= Number.MAX_SAFE_INTEGER) return value;
    this.at = at;
    return exact(this.u64());
  }

  /** A varint, exactly. */
  count(): Int {
    const { at } = this;
    const value = this.varint();
    if (value <= Number.MAX_SAFE_INTEGER) return value;
    this.at = at;
    return exact(this.bigVarint());
  }

  /** An offset, or the time of a message. */
  offset(): Int {
    const value = this.int();
    must(value < OFFSETS);
    return value;
  }

  millis(): number {
    const value = this.number();
    must(value <= MAX_MILLIS);
    return value;
  }

  /** 16 bytes, as hexadecimal digits. */
  id(): string {
    return hex(this.take(16));
  }

  /** A field that has one of these values. The first value has the number `first`. */
  one<T>(values: readonly T[], first: number): T {
    const value = values[this.u8() - first];
    must(value !== undefined);
    return value;
  }

  /** The rest, as text. */
  text(): string {
    const bytes = this.rest();
    const found = bytes.length > MAX_TEXT ? undefined : text(bytes);
    must(found !== undefined);
    return found;
  }

  /** All fields were there. */
  check(): void {
    must(!this.failed);
  }
}

/** A writer of a packet of this kind. */
export function packet(kind: number, capacity?: number): Writer {
  return new Writer(capacity).u8(kind);
}

export function u32(writer: Writer, value: number): Writer {
  return writer.u16(value >>> 16).u16(value);
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function unhex(digits: string): Uint8Array {
  return Uint8Array.from(digits.match(/../g) ?? [], (byte) => parseInt(byte, 16));
}
