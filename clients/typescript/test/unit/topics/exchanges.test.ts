import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { Walk, wholePacket } from "../../support/topics-walk.ts";
import { type Json, packetAsJson, readVectors } from "../../support/vectors.ts";

const SCRIPT = fileURLToPath(new URL("../../support/exchanges.py", import.meta.url));
const SEEDS = Number(process.env.UNSTALL_SCRIPTS ?? 10_000);
const FIRST = Number(process.env.UNSTALL_SEED ?? 0);

/** The exchanges that the script prints. */
async function* exchanges(...args: string[]): AsyncGenerator<Json> {
  const child = spawn("python3", [SCRIPT, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.on("close", resolve));
  for await (const line of createInterface({ input: child.stdout })) yield JSON.parse(line);
  expect(await ended).toBe(0);
}

function check(exchange: Json): void {
  const walk = new Walk(exchange.client);
  exchange.steps.forEach((step: Json, at: number) => {
    const { got, expected } = walk.do(step);
    if (JSON.stringify(got) === JSON.stringify(expected)) return;
    expect(got, `${exchange.name}, step ${at}, ${step.do}`).toEqual(expected);
  });
}

describe("every exchange of the vectors is the same with this client", async () => {
  const vectors = readVectors("topics-exchanges.json") as Json[];
  const whole: Json[] = [];
  for await (const exchange of exchanges("vectors")) whole.push(exchange);

  test("all of them are there, with the bytes that the vectors have", () => {
    expect(whole.map(({ name }) => name)).toEqual(vectors.map(({ name }) => name));
    whole.forEach((exchange, at) => {
      const packets = (of: Json) => of.steps.flatMap((step: Json) => step.packets ?? []);
      const is = packets(exchange).map((packet: string | Json) => packetAsJson(wholePacket(packet)));
      const words = (all: Json[]) =>
        all.map((it) => (/^(1a|27)/.test(`${it}`) ? `${it}`.slice(0, 2) : it));
      expect(words(is)).toEqual(words(packets(vectors[at]!)));
    });
  });

  for (const exchange of whole) test(exchange.name, () => check(exchange));
});

test(`${SEEDS} exchanges drawn by seed are the same with this client`, async () => {
  let count = 0;
  for await (const exchange of exchanges("random", `${FIRST}`, `${FIRST + SEEDS - 1}`)) {
    check(exchange);
    count++;
  }
  expect(count).toBe(SEEDS);
}, 600_000);
