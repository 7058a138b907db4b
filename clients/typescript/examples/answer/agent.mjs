// Plays an agent: it publishes an answer word by word to the topic answer.N, and the last piece as the final one.
//
//   node examples/answer/agent.mjs ws://127.0.0.1:9200/topics 1

import { pathToFileURL } from "node:url";
import WebSocket from "ws";
import { Topics } from "../../dist/index.js";

export const ANSWER = `A log with names and positions takes the place of a buffer for each reader.

The agent publishes each piece of its answer once. The page reads the pieces from where it stands: \
from the first one, when it is opened, and from behind the last one that it has shown, when it is \
loaded again. The network may break, the server may be started again, and a second device may read \
along. Each of them sees the same words in the same order, and knows when the answer is complete.`;

/** Publishes the answer. Resolves when all of it is stored. */
export async function answer(url, number, everyMillis = 40) {
  const topics = new Topics(url, { WebSocket });
  const pieces = ANSWER.match(/\s*\S+/g);
  for (const [at, piece] of pieces.entries()) {
    await topics.publish(`answer.${number}`, piece, { final: at === pieces.length - 1 });
    await new Promise((resolve) => setTimeout(resolve, everyMillis));
  }
  await topics.close();
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [, , url = "ws://127.0.0.1:9200/topics", number = "1"] = process.argv;
  await answer(url, number);
}
