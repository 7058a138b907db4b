// The client of `unstall verify --topics --client 'node proof/topics.mjs {url}'`: it publishes each message of
// the topic verify.in to the topic verify.out, once and in order, and ends behind the final one.
// URLS are those of the nodes, with commas between. Build the package first: npm run build.

import WebSocket from "ws";
import { Topics } from "../dist/index.js";
import { GapFound, relayed } from "./relayed.mjs";

const urls = process.argv[2]?.split(",");
if (!urls) {
  console.error("usage: topics.mjs URL[,URL...]");
  process.exit(2);
}

try {
  const topics = new Topics(urls, { WebSocket, reconnect: { max: 1_000 } });
  const count = await relayed(topics);
  await topics.close();
  console.error(`${count} messages went through`);
} catch (error) {
  console.error(`topics.mjs: ${error.message}`);
  // What is under way does not matter any more.
  process.exit(error instanceof GapFound ? 1 : 2);
}
