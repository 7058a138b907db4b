/**
 * Numbers and text as bytes: big-endian integers, and the varints of RFC 9000, section 16.
 *
 * Nothing here throws an error of its own kind. Whoever reads checks {@link Reader.failed} once, behind
 * all fields, and says what is wrong in the words of its protocol.
 */

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** UTF-8. A lone surrogate becomes U+FFFD, as everywhere on the web. */
export const utf8 = (text: string): Uint8Array => encoder.encode(text);

/** The text, or nothing if the bytes are not UTF-8. */
export function text(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}

/** How many bytes a varint takes: 1, 2, 4 or 8. */
export const varintLength = (value: number): number =>
  value < 0x40 ? 1 : value < 0x4000 ? 2 : value < 0x40000000 ? 4 : 8;

/** Writes the shortest varint at `at`. The value is below 2^53. Returns where it ends. */
export function putVarint(bytes: Uint8Array, at: number, value: number): number {
  if (value < 0x40) {
    bytes[at] = value;
    return at + 1;
  }
  if (value < 0x4000) {
    bytes[at] = 0x40 | (value >> 8);
    bytes[at + 1] = value;
    return at + 2;
  }
  if (value < 0x40000000) {
    bytes[at] = 0x80 | (value >>> 24);
    bytes[at + 1] = value >>> 16;
    bytes[at + 2] = value >>> 8;
    bytes[at + 3] = value;
    return at + 4;
  }
  putU32(bytes, at, (0xc0000000 | Math.floor(value / 2 ** 32)) >>> 0);
  putU32(bytes, at + 4, value >>> 0);
  return at + 8;
}

function putU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** Writes a u64 from a number below 2^53. */
export function putU64(bytes: Uint8Array, at: number, value: number): void {
  putU32(bytes, at, Math.floor(value / 2 ** 32));
  putU32(bytes, at + 4, value >>> 0);
}

/** Reads fields from the front. After a field that is cut short, every field is 0 or empty. */
export class Reader {
  readonly bytes: Uint8Array;
  at: number;
  /** A field was cut short. */
  failed = false;
  /** The buffer of these bytes, and where they begin in it: to ask a view for them costs as much as to make one. */
  readonly #buffer: ArrayBufferLike;
  readonly #start: number;
  readonly #view: DataView;

  constructor(bytes: Uint8Array, at = 0) {
    this.bytes = bytes;
    this.at = at;
    this.#buffer = bytes.buffer;
    this.#start = bytes.byteOffset;
    this.#view = new DataView(this.#buffer, this.#start, bytes.byteLength);
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  /** Where a field of that size begins; -1 if it is cut short. */
  #field(size: number): number {
    const at = this.at;
    if (this.failed || size > this.left) {
      this.failed = true;
      return -1;
    }
    this.at = at + size;
    return at;
  }

  u8(): number {
    const at = this.#field(1);
    return at < 0 ? 0 : this.bytes[at]!;
  }

  u16(): number {
    const at = this.#field(2);
    return at < 0 ? 0 : this.#view.getUint16(at);
  }

  u64(): bigint {
    const at = this.#field(8);
    return at < 0 ? 0n : this.#view.getBigUint64(at);
  }

  /**
   * A u64 as a number. From 2^53 on it is rounded, so it may be used where such a value is an error, or
   * only its size matters.
   */
  number(): number {
    const at = this.#field(8);
    return at < 0 ? 0 : this.#view.getUint32(at) * 2 ** 32 + this.#view.getUint32(at + 4);
  }

  /** A varint as a number; rounded from 2^53 on. Every form is read, not only the shortest. */
  varint(): number {
    const at = this.#field(1);
    if (at < 0) return 0;
    const first = this.bytes[at]!;
    if (first < 0x40) return first;
    this.at = at;
    const size = 1 << (first >> 6);
    if (this.#field(size) < 0) return 0;
    if (size === 2) return this.#view.getUint16(at) & 0x3fff;
    const high = this.#view.getUint32(at) & 0x3fffffff;
    return size === 4 ? high : high * 2 ** 32 + this.#view.getUint32(at + 4);
  }

  /** A varint of up to 62 bits, exactly. */
  bigVarint(): bigint {
    const at = this.at;
    const value = this.varint();
    if (this.at - at < 8) return BigInt(value);
    return this.#view.getBigUint64(at) & 0x3fffffffffffffffn;
  }

  /** The next bytes, as a view of the packet. */
  take(size: number): Uint8Array {
    const at = this.#field(size);
    return at < 0 ? new Uint8Array(0) : new Uint8Array(this.#buffer, this.#start + at, size);
  }

  /** Goes over these bytes if they come next. */
  skip(known: Uint8Array): boolean {
    const { bytes, at } = this;
    if (this.failed || known.length > this.left) return false;
    for (let index = known.length; index-- > 0; ) if (bytes[at + index] !== known[index]) return false;
    this.at = at + known.length;
    return true;
  }

  /** All that is left, as a view of the packet. */
  rest(): Uint8Array {
    return this.take(this.left);
  }
}

/** Writes fields one behind the other, and grows as they need it. */
export class Writer {
  #bytes: Uint8Array;
  #at = 0;

  constructor(capacity = 128) {
    this.#bytes = new Uint8Array(capacity);
  }

  get length(): number {
    return this.#at;
  }

  #field(size: number): number {
    const at = this.#at;
    if (at + size > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(at + size, 2 * this.#bytes.length));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
    }
    this.#at = at + size;
    return at;
  }

  u8(value: number): this {
    const at = this.#field(1);
    this.#bytes[at] = value;
    return this;
  }

  u16(value: number): this {
    return this.u8(value >> 8).u8(value);
  }

  u64(value: number | bigint): this {
    const at = this.#field(8);
    const exact = BigInt(value);
    putU32(this.#bytes, at, Number(exact >> 32n));
    putU32(this.#bytes, at + 4, Number(exact & 0xffffffffn));
    return this;
  }

  varint(value: number | bigint): this {
    if (value < 2 ** 53) {
      const number = Number(value);
      const at = this.#field(varintLength(number));
      putVarint(this.#bytes, at, number);
      return this;
    }
    return this.u64(BigInt(value) | (3n << 62n));
  }

  raw(bytes: Uint8Array): this {
    const at = this.#field(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** What was written, as a view. Nothing may be written after it. */
  done(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }
}
