/** Real programs `unstall hub`, which tests kill and start again. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The program: `UNSTALL_BIN`, else what was built in this checkout. */
export function unstallBin(): string {
  const built = ["debug", "release"].map((kind) =>
    fileURLToPath(new URL(`../../../../target/${kind}/unstall`, import.meta.url)),
  );
  const found = process.env.UNSTALL_BIN ?? built.find((path) => existsSync(path));
  if (!found) throw new Error("there is no program unstall: build it, or set UNSTALL_BIN");
  return found;
}

export class Hub {
  #child: ChildProcess | undefined;
  port = 0;
  readonly args: string[];

  private constructor(args: string[]) {
    this.args = args;
  }

  static async start(...args: string[]): Promise<Hub> {
    const hub = new Hub(args);
    await hub.start();
    return hub;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}/topics`;
  }

  get http(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Starts it, at the port that it had before. */
  async start(): Promise<void> {
    const args = ["hub", "--listen", `127.0.0.1:${this.port}`, ...this.args];
    const child = spawn(unstallBin(), args, { stdio: ["ignore", "pipe", "inherit"] });
    this.#child = child;
    for await (const line of createInterface({ input: child.stdout! })) {
      const port = /listening on ws:\/\/.*:(\d+)/.exec(line)?.[1];
      if (port) {
        this.port = Number(port);
        child.stdout!.resume();
        return;
      }
    }
    throw new Error("the hub did not start");
  }

  /** Ends it without a word. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null) return;
    child.kill(signal);
    await once(child, "exit");
  }
}
