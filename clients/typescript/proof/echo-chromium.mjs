#!/usr/bin/env node
// The same as echo.mjs, in a page of Chromium.
//
//   unstall verify --client 'node clients/typescript/proof/echo-chromium.mjs {url}'
import { openPage } from "./page.mjs";

const url = process.argv[2];
if (!url) {
  console.error("usage: echo-chromium.mjs URL");
  process.exit(2);
}

const { page, close } = await openPage(url);
let code = 0;
try {
  await page.evaluate(async (to) => {
    const { connect, Gap } = globalThis.unstall;
    const session = await connect(to);
    for await (const incoming of session) {
      if (incoming instanceof Gap) throw new Error(String(incoming));
      await session.send(incoming);
    }
    const { clean, error } = await session.closed;
    if (!clean) throw error ?? new Error("the session was not closed in order");
  }, url);
} catch (error) {
  console.error(`echo: ${error.message}`);
  code = 1;
}
await close();
process.exit(code);
