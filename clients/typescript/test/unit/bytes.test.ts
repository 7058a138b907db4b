import { expect, test } from "vitest";
import { Reader, Writer } from "../../src/core/bytes.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

test("varints are those of RFC 9000, appendix A.1", () => {
  for (const [value, bytes] of [
    [151288809941952652n, "c2197c5eff14e88c"],
    [494878333n, "9d7f3e7d"],
    [15293n, "7bbd"],
    [37n, "25"],
  ] as const) {
    expect(hex(new Writer().varint(value).done())).toBe(bytes);
    expect(new Reader(Buffer.from(bytes, "hex")).bigVarint()).toBe(value);
  }
});

test("a varint longer than needed is read", () => {
  expect(new Reader(Buffer.from("4025", "hex")).varint()).toBe(37);
  expect(new Reader(Buffer.from("c000000000000025", "hex")).varint()).toBe(37);
});

test("every length of a varint survives the way there and back", () => {
  for (const value of [0, 63, 64, 16383, 16384, 2 ** 30 - 1, 2 ** 30, 2 ** 53 - 1]) {
    const bytes = new Writer(1).u8(7).varint(value).done();
    const reader = new Reader(bytes, 1);
    expect(reader.varint()).toBe(value);
    expect(reader.left).toBe(0);
    expect(reader.failed).toBe(false);
  }
});

test("a field that is cut short fails, and so does all that follows", () => {
  const reader = new Reader(new Uint8Array([0x40]));
  expect(reader.varint()).toBe(0);
  expect(reader.u8()).toBe(0);
  expect(reader.failed).toBe(true);
});

test("integers are big-endian, and 64 bits are exact", () => {
  const bytes = new Writer()
    .u16(0x0102)
    .u64(0xfffffffffffffffen)
    .u64(2 ** 40 + 1)
    .done();
  const reader = new Reader(bytes);
  expect(reader.u16()).toBe(0x0102);
  expect(reader.u64()).toBe(0xfffffffffffffffen);
  expect(reader.number()).toBe(2 ** 40 + 1);
});
