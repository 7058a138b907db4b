import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../../", import.meta.url));

/** The program `unstall`: `UNSTALL_BIN`, else the one that was built in this checkout. */
export function unstallBin(): string {
  const places = [
    process.env.UNSTALL_BIN,
    `${root}target/debug/unstall`,
    `${root}target/release/unstall`,
  ];
  const found = places.find((it) => it && existsSync(it));
  if (!found)
    throw new Error("build the program first (cargo build -p unstall-cli), or set UNSTALL_BIN");
  return found;
}

export interface Served {
  /** Such as ws://127.0.0.1:4711, without a path. */
  url: string;
  port: number;
  process: ChildProcess;
  /** Ends it at once, as a crash would. */
  kill(): Promise<void>;
}

/** Starts `unstall COMMAND …` and waits until it listens. */
export async function serve(command = "serve", args: string[] = [], port = 0): Promise<Served> {
  const listen = ["--listen", `127.0.0.1:${port}`];
  const child = spawn(unstallBin(), [command, ...listen, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let errors = "";
  child.stderr.on("data", (data) => {
    errors += data;
  });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).on("line", (line) => {
      const found = /listening on (ws:\/\/[^ ]+)/.exec(line);
      if (found) resolve(found[1]!.replace(/\/$/, ""));
    });
    child.once("error", reject);
    void ended.then(() => reject(new Error(`unstall ${command} ended: ${errors}`)));
  });
  const kill = async () => {
    child.kill("SIGKILL");
    await ended;
  };
  return { url, port: Number(new URL(url).port), process: child, kill };
}
