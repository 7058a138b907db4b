import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { DATA_HEADER } from "../../../src/core/limits.ts";
import * as wire from "../../../src/core/packet.ts";
import { Records } from "../../../src/core/record.ts";
import { hex, unhex } from "../../support/hex.ts";
import { ERRORS, FIELDS } from "../../support/names.ts";
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
const { decode, encode } = wire;

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
  const [kind, ...values] = decode(bytes);
  if (kind >= 0x80) return { kind };
  const [name, fields] = FIELDS[kind]!;
  const plain = fields
    .split(" ")
    .filter(Boolean)
    .map((field, index) => {
      const value = values[index]!;
      if (value instanceof Uint8Array) return [field, hex(value)];
      return [field, typeof value === "bigint" ? value.toString() : value];
    });
  const records = kind === wire.DATA ? { records: walk(bytes) } : {};
  return { kind: name, ...Object.fromEntries(plain), ...records };
}

test("there are as many vectors as there should be", () => {
  expect(packets.valid.length).toBeGreaterThanOrEqual(27);
  expect(packets.malformed.length).toBeGreaterThanOrEqual(30);
  expect(sessions.length).toBeGreaterThanOrEqual(58);
});

test.each(packets.valid)("packet: $name", ({ hex: bytes, packet }) => {
  expect(fields(unhex(bytes))).toEqual(packet);
  if (typeof packet.kind !== "string") return;
  // The records of DATA are written by the outbox.
  const written = hex(encode(decode(unhex(bytes))));
  expect(packet.kind === "DATA" ? bytes.slice(0, 18) : bytes).toBe(written);
});

test.each(packets.malformed)("malformed packet: $name", ({ hex: bytes, error }) => {
  expect(() => {
    const packet = unhex(bytes);
    if (decode(packet)[0] === wire.DATA) walk(packet);
  }).toThrow(expect.objectContaining({ code: ERRORS.indexOf(error) + 1 }));
});

test.each(sessions)("session: $name", (script) => {
  const steps = new Runner(script).run();
  for (const [index, step] of steps.entries()) {
    expect(withoutWords(step), `step ${index}`).toEqual(withoutWords(script.steps[index]!));
  }
});
