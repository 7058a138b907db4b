import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import { expect, test } from "vitest";
import { Runner, type Script, withoutWords } from "../../support/script.ts";

// The Rust core draws scripts by seed, and says what comes of them there. Every packet and every event must
// be the same here. Build it with: cargo build -p unstall-proto --example session_scripts
const target = fileURLToPath(new URL("../../../../../target/", import.meta.url));
const places = ["debug", "release"].map((profile) => `${target}${profile}/examples/session_scripts`);
const program = places.find(existsSync);
const count = Number(process.env.UNSTALL_SCRIPTS ?? 10_000);
const first = Number(process.env.UNSTALL_SEED ?? 0);

test.skipIf(!program)(
  `${count} scripts go as in the Rust core (needs its example session_scripts)`,
  { timeout: 300_000 },
  async () => {
    const child = spawn(program!, [String(first), String(count)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const seen: Record<string, number> = {};
    let scripts = 0;
    for await (const line of createInterface(child.stdout)) {
      const script = JSON.parse(line) as Script;
      const steps = new Runner(script).run();
      for (const [index, step] of steps.entries()) {
        const there = withoutWords(script.steps[index]!);
        const here = withoutWords(step);
        if (!isDeepStrictEqual(here, there))
          expect(here, `${script.name}, step ${index}`).toEqual(there);
        for (const name of Object.keys(step)) seen[name] = (seen[name] ?? 0) + 1;
        if (step.error) seen[String(step.error)] = (seen[String(step.error)] ?? 0) + 1;
      }
      scripts += 1;
    }
    expect(scripts).toBe(count);
    // The scripts reach what they are for.
    if (count >= 10_000) {
      for (const name of [
        "end",
        "full",
        "CREDIT_EXCEEDED",
        "SEQUENCE_GAP",
        "INVALID_ACK",
        "superseded",
      ]) {
        expect(seen, `none of the scripts has ${name}`).toHaveProperty(name);
      }
    }
  },
);
