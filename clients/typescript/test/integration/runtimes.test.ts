import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Served, serve } from "../support/programs.ts";
import { FaultProxy, seeded } from "../support/proxy.ts";

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const program = path("../support/runtime.mjs");
const run = promisify(execFile);

/** Where `npm install --prefix target/runtimes deno bun` puts them; else they are looked for on the path. */
const own = path("../../../../target/runtimes/node_modules/.bin/");
const places = [own, ...(process.env.PATH ?? "").split(":").map((it) => `${it}/`)];
const find = (name: string) => places.map((it) => it + name).find(existsSync);
const isOld = Number.parseInt(process.versions.node, 10) < 22;

const runtimes = [
  { name: "Node", command: process.execPath, args: isOld ? ["--experimental-websocket"] : [] },
  { name: "Deno", command: find("deno"), args: ["run", "--no-config", "--allow-net"] },
  { name: "Bun", command: find("bun"), args: ["run"] },
];

describe.each(runtimes)("$name", ({ command, args }) => {
  let server: Served;
  let hub: Served;
  const proxies: FaultProxy[] = [];

  /** A way to the server whose connections are cut, the first one after a while. */
  async function cutting(port: number, seed: number): Promise<string> {
    const proxy = await FaultProxy.start(port);
    const random = seeded(seed);
    proxy.nextLimit = () => 100_000 + Math.floor(random() * 200_000);
    proxies.push(proxy);
    return proxy.url;
  }

  beforeAll(async () => {
    [server, hub] = await Promise.all([serve(), serve("hub")]);
  });
  afterAll(async () => {
    for (const proxy of proxies) await proxy.stop();
    await Promise.all([server.kill(), hub.kill()]);
  });

  test.skipIf(!command)(
    "moves 10,000 messages each way and through a topic, each once and in order, over connections that are cut",
    async () => {
      const [echo, node] = [await cutting(server.port, 1), await cutting(hub.port, 2)];
      const all = [...args, program, `${echo}/echo`, `${node}/topics`];
      // It also ends by itself when everything is closed.
      const { stdout } = await run(command!, all, { timeout: 60_000 });
      expect(JSON.parse(stdout)).toEqual({
        session: { messages: 10_000, resumed: true, clean: true, code: 1000 },
        topics: { messages: 10_000, lost: true },
      });
    },
  );
});
