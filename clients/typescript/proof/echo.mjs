#!/usr/bin/env node
// The echo client of `unstall verify --client`: sends each message back, unchanged and in order. The page
// "Proving a client" of the guide has its contract. Build the package first (npm run build).
//
//   unstall verify --client 'node clients/typescript/proof/echo.mjs {url}'
//   unstall verify --client 'node clients/typescript/proof/echo.mjs --by-hand {url}' --faults kill --times 5
import * as unstall from "unstall";
import { WebSocket } from "ws";
import { echo } from "./echo-work.mjs";

const byHand = process.argv[2] === "--by-hand";
const url = process.argv.at(-1);
if (!url?.startsWith("ws")) {
  console.error("usage: echo.mjs [--by-hand] URL");
  process.exit(2);
}
const { code, words } = await echo(unstall, url, byHand, { WebSocket });
if (words) console.error(words);
process.exit(code);
