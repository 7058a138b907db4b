import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { serve } from "../support/programs.ts";

const program = fileURLToPath(new URL("../support/global-websocket.mjs", import.meta.url));

test("the built package needs no option where Node has a WebSocket, and lets the process end", async () => {
  const server = await serve();
  const flag = process.versions.node.startsWith("20.") ? ["--experimental-websocket"] : [];
  const run = promisify(execFile)(process.execPath, [...flag, program, `${server.url}/echo`]);
  expect(JSON.parse((await run).stdout)).toEqual({ index: 5_000, clean: true, code: 1000 });
  await server.kill();
});
