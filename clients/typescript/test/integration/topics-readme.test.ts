import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { closeBehindEach, hubOf, opened } from "../support/topics.ts";

closeBehindEach();

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

/** What README says of topics, in its languages. */
async function programs(language: string): Promise<string[]> {
  const readme = await readFile(`${ROOT}/README.md`, "utf8");
  const section = /^## Topics\n([\s\S]*?)(?=^## |$(?![\s\S]))/m.exec(readme)?.[1] ?? "";
  return [...section.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)]
    .filter(([, name]) => name === language)
    .map(([, , program]) => program ?? "");
}

async function directory(): Promise<string> {
  const path = await mkdtemp(`${ROOT}/node_modules/.readme-`);
  opened.push(() => rm(path, { recursive: true }));
  return path;
}

test("the programs of README run, one after the other, against a hub", async () => {
  const hub = await hubOf();
  const path = await directory();
  const all = await programs("js");
  let said = "";
  for (const [at, program] of all.entries()) {
    const ready = program
      .replaceAll("ws://127.0.0.1:9200/topics", hub.url)
      .replace('from "unstall"', `from "${ROOT}/dist/index.js"`);
    await writeFile(`${path}/${at}.mjs`, ready);
    said += (await run("node", [`${path}/${at}.mjs`], { timeout: 20_000 })).stdout;
  }
  expect(said.split("\n")).toEqual([
    "stored at 1",
    "3 stored",
    "the message is not stored: invalid topic invalid topic false",
    ...["2 It false", "3 never false", "4 stalls. true"],
    "the answer is complete",
    "c",
    "",
  ]);
});

test("the programs of README for pages have the right types", async () => {
  const path = await directory();
  const pages = [...(await programs("ts")), ...(await programs("tsx"))];
  expect(pages.length).toBe(3);
  for (const [at, program] of pages.entries()) await writeFile(`${path}/${at}.tsx`, program);
  const compilerOptions = {
    ...{ strict: true, noEmit: true, skipLibCheck: true, jsx: "react-jsx", target: "ES2022" },
    ...{ module: "ESNext", moduleResolution: "bundler", types: [] },
    lib: ["ES2022", "DOM", "DOM.AsyncIterable"],
    paths: { unstall: [`${ROOT}/dist/index.d.ts`], "unstall/react": [`${ROOT}/dist/react.d.ts`] },
  };
  await writeFile(`${path}/tsconfig.json`, JSON.stringify({ compilerOptions, include: ["*.tsx"] }));
  await run(`${ROOT}/node_modules/.bin/tsc`, ["-p", path]).catch((error) => {
    throw new Error(error.stdout);
  });
});
