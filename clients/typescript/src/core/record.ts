import { text } from "./bytes.ts";
import { MAX_RECORD } from "./limits.ts";
import { malformed } from "./packet.ts";

/** A message: text, or bytes. Received bytes are a view of the packet that they came in. */
export type Message = string | Uint8Array;

/** Shorter text is decoded here: a call of the decoder costs as much as some 40 characters. */
const SHORT_TEXT = 24;

/** The records of a packet, one after the other, read in place: SPEC.md, section 4. */
export class Records {
  readonly #bytes: Uint8Array;
  /** The buffer of these bytes, and where they begin in it: to ask a view for them costs as much as to make one. */
  readonly #buffer: ArrayBufferLike;
  readonly #start: number;
  /** Where the next record begins. */
  at: number;
  /** Where the payload of this record begins. */
  #from = 0;
  isText = false;
  continues = false;
  length = 0;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.#buffer = bytes.buffer;
    this.#start = bytes.byteOffset;
    this.at = at;
  }

  /** Goes on to the next record. `false` at the end. Throws if it cannot be read. */
  next(): boolean {
    const bytes = this.#bytes;
    const end = bytes.length;
    let at = this.at;
    if (at >= end) return false;
    let word = bytes[at]!;
    const size = 1 << (word >> 6);
    if (at + size > end) throw malformed();
    // Most records are short: their word is a small integer.
    if (size === 2) word = ((word & 0x3f) << 8) | bytes[at + 1]!;
    else if (size > 2) {
      word &= 0x3f;
      // The two lowest bits are not touched by rounding, because such a word is too large anyway.
      for (let index = 1; index < size; index++) word = word * 256 + bytes[at + index]!;
    }
    const length = size > 2 ? Math.floor(word / 4) : word >> 2;
    if (length > MAX_RECORD) throw malformed();
    at += size;
    if (at + length > end) throw malformed();
    this.isText = (word & 1) !== 0;
    this.continues = (word & 2) !== 0;
    if (this.continues && length === 0) throw malformed();
    this.#from = at;
    this.length = length;
    this.at = at + length;
    return true;
  }

  /** The payload of this record, as a view. */
  payload(): Uint8Array {
    // Twice as fast as `subarray`, which looks for a constructor first.
    return new Uint8Array(this.#buffer, this.#start + this.#from, this.length);
  }

  /** The payload as text; nothing if it is not UTF-8. */
  text(): string | undefined {
    if (this.length > SHORT_TEXT) return text(this.payload());
    const bytes = this.#bytes;
    let result = "";
    for (let at = this.#from; at < this.at; at++) {
      const byte = bytes[at]!;
      if (byte > 0x7f) return text(this.payload());
      result += String.fromCharCode(byte);
    }
    return result;
  }

  /** A message from its parts; nothing if it is text and not UTF-8. */
  static message(isText: boolean, parts: Uint8Array[]): Message | undefined {
    const whole = parts.length === 1 ? parts[0]! : joined(parts);
    return isText ? text(whole) : whole;
  }
}

function joined(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
