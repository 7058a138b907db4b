import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { DATA_HEADER } from "../../../src/core/limits.ts";
import * as wire from "../../../src/core/packet.ts";
import { Records } from "../../../src/core/record.ts";
import { hex, unhex } from "../../support/hex.ts";
import { Runner, type Script, withoutWords } from "../../support/script.ts";

const read = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../../../../vectors/${name}`, import.meta.url), "utf8"));

interface Vector {
  name: string;
  hex: string;
  packet: Record<string, unknown>;
  error: string;
}

const packets = read("packets.json") as { valid: Vector[]; malformed: Vector[] };
const sessions = read("sessions.json") as Script[];
const { Violation, decode, encode, ...kinds } = wire;
const nameOf = (kind: number) => Object.entries(kinds).find(([, value]) => value === kind)?.[0];

function walk(bytes: Uint8Array): unknown[] {
  const records = new Records(bytes, DATA_HEADER);
  const all: unknown[] = [];
  while (records.next()) {
    all.push({ text: records.isText, continues: records.continues, payload: hex(records.payload()) });
  }
  return all;
}

/** The fields of a packet as the vectors write them. */
function fields(bytes: Uint8Array): Record<string, unknown> {
  const packet = decode(bytes);
  if (packet.kind >= 0x80) return { kind: packet.kind };
  const plain = Object.entries(packet).map(([name, value]) => {
    if (name === "kind") return [name, nameOf(value)];
    if (name === "records") return [name, walk(bytes)];
    if (value instanceof Uint8Array) return [name, hex(value)];
    return [name, typeof value === "bigint" ? value.toString() : value];
  });
  return Object.fromEntries(plain);
}

test("there are as many vectors as there should be", () => {
  expect(packets.valid.length).toBeGreaterThanOrEqual(27);
  expect(packets.malformed.length).toBeGreaterThanOrEqual(30);
  expect(sessions.length).toBeGreaterThanOrEqual(58);
});

test.each(packets.valid)("packet: $name", ({ hex: bytes, packet }) => {
  expect(fields(unhex(bytes))).toEqual(packet);
  if (typeof packet.kind === "string") expect(hex(encode(decode(unhex(bytes))))).toBe(bytes);
});

test.each(packets.malformed)("malformed packet: $name", ({ hex: bytes, error }) => {
  expect(() => {
    const packet = unhex(bytes);
    if (decode(packet).kind === wire.DATA) walk(packet);
  }).toThrow(expect.objectContaining({ code: error }));
});

test.each(sessions)("session: $name", (script) => {
  const steps = new Runner(script).run();
  for (const [index, step] of steps.entries()) {
    expect(withoutWords(step), `step ${index}`).toEqual(withoutWords(script.steps[index]!));
  }
});
