#!/usr/bin/env node
// The same as echo.mjs, in a page of Chromium.
//
//   unstall verify --client 'node clients/typescript/proof/echo-chromium.mjs {url}' --patience 120
import { openChromium } from "./chromium.mjs";
import { echo } from "./echo-work.mjs";

const byHand = process.argv[2] === "--by-hand";
const url = process.argv.at(-1);
if (!url?.startsWith("ws")) {
  console.error("usage: echo-chromium.mjs [--by-hand] URL");
  process.exit(2);
}
const chromium = await openChromium();
const page = await chromium.newPage(url);
const run = `(${echo})(unstall, ${JSON.stringify(url)}, ${byHand})`;
const { code, words } = await page.evaluate(run);
if (words) console.error(words);
await chromium.close();
process.exit(code);
