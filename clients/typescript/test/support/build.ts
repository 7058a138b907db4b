// The integration tests use the package as it is published. It is built once, before any of them runs: a test that
// built it itself would take it away from the others for a moment.
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const cwd = fileURLToPath(new URL("../..", import.meta.url));
const shared = globalThis as { building?: Promise<unknown> };

export default async function setup(): Promise<void> {
  // .ci/typescript has built it just before.
  if (process.env.UNSTALL_PACKAGE_BUILT) return;
  // Two projects of tests ask for it, in one process.
  shared.building ??= promisify(execFile)("npm", ["run", "build"], { cwd });
  await shared.building;
}
