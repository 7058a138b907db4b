/** How vectors/ writes messages and packets as JSON: vectors/README.md. */

import { readFileSync } from "node:fs";

// biome-ignore lint/suspicious/noExplicitAny: it is what a file says
export type Json = Record<string, any>;

export function readVectors(name: string): Json {
  const path = new URL(`../../../../vectors/${name}`, import.meta.url);
  return JSON.parse(readFileSync(path, "utf8"));
}

export const unhex = (digits: string): Uint8Array => new Uint8Array(Buffer.from(digits, "hex"));

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** The bytes of a vector: hex, and one byte many times. */
export function bytesOf(vector: Json): Uint8Array {
  const { byte, length } = vector.repeat ?? { byte: 0, length: 0 };
  return new Uint8Array(Buffer.concat([unhex(vector.hex), new Uint8Array(length).fill(byte)]));
}

/** The payload of a step: text is a string. */
export function payloadOf(step: Json): string | Uint8Array {
  if (step.text !== undefined) return step.text;
  if (step.hex !== undefined) return unhex(step.hex);
  const { text, times, byte, length } = step.repeat;
  return text === undefined ? new Uint8Array(length).fill(byte) : text.repeat(times);
}

/** The reverse. */
export function payloadAsJson(data: string | Uint8Array): Json {
  const isText = typeof data === "string";
  const bytes = Buffer.from(data as string);
  if (bytes.length <= 64) return isText ? { text: data } : { hex: bytes.toString("hex") };
  if (!isText) return { repeat: { byte: bytes[0], length: bytes.length } };
  const text = String.fromCodePoint(data.codePointAt(0) ?? 0);
  return { repeat: { text, times: bytes.length / Buffer.from(text).length } };
}

/** A packet; of a long one only how it begins, its length and a hash. */
export function packetAsJson(bytes: Uint8Array): string | Json {
  if (bytes.length <= 256) return hex(bytes);
  return { begins: hex(bytes.subarray(0, 64)), length: bytes.length, fnv1a: fnv1a(bytes) };
}

/** FNV-1a of 64 bits, in four parts of 16 bits: `bigint` takes a second for a megabyte. */
function fnv1a(bytes: Uint8Array): string {
  let [a, b, c, d] = [0x2325, 0x8422, 0x9ce4, 0xcbf2];
  for (const byte of bytes) {
    a ^= byte;
    // Times 2^40 + 0x1b3.
    const low = a * 0x1b3;
    const next = b * 0x1b3 + (low >>> 16);
    const third = c * 0x1b3 + (a << 8) + Math.floor(next / 0x10000);
    const high = d * 0x1b3 + (b << 8) + Math.floor(third / 0x10000);
    [a, b, c, d] = [low & 0xffff, next & 0xffff, third & 0xffff, high & 0xffff];
  }
  return [d, c, b, a].map((part) => part.toString(16).padStart(4, "0")).join("");
}

/** The words of ABORT are free. */
export function withoutWords(packet: string | Json): string | Json {
  return typeof packet === "string" && packet.startsWith("1a") ? packet.slice(0, 6) : packet;
}
