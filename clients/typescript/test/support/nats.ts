import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { directory, opened } from "./topics.ts";

/** What `.ci/nats-server` installs. */
const program = fileURLToPath(new URL("../../../../target/nats-server/nats-server", import.meta.url));

export const hasNats = existsSync(program);

/** Starts a server of NATS with JetStream, which ends behind the test. Resolves with its address. */
export async function nats(): Promise<string> {
  const store = await directory();
  // At port -1 it takes a free one, and its log says which.
  const args = ["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir", store];
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
  opened.push(async () => {
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  });
  let port = "";
  return new Promise((resolve, reject) => {
    createInterface(child.stderr).on("line", (line) => {
      port = /Listening for client connections on .*:(\d+)/.exec(line)?.[1] ?? port;
      if (line.includes("Server is ready")) resolve(`nats://127.0.0.1:${port}`);
    });
    child.once("exit", () => reject(new Error("nats-server ended")));
  });
}
