#!/usr/bin/env node
// The echo client of `unstall verify --client`: sends each message back, unchanged and in order.
// Build the package first (npm run build).
//
//   unstall verify --client 'node clients/typescript/proof/echo.mjs {url}'
import { connect, Gap } from "unstall";
import { WebSocket } from "ws";

const url = process.argv[2];
if (!url) {
  console.error("usage: echo.mjs URL");
  process.exit(2);
}

try {
  const session = await connect(url, { WebSocket });
  for await (const incoming of session) {
    if (incoming instanceof Gap) throw new Error(String(incoming));
    await session.send(incoming);
  }
  const { clean, error } = await session.closed;
  if (!clean) throw error ?? new Error("the session was not closed in order");
} catch (error) {
  console.error(`echo: ${error.message}`);
  process.exit(1);
}
