// Publishes ticks of three pairs to ticks.PAIR, 20 a second each, also while the hub is away: they wait.
//
//   node examples/chart/ticks.mjs ws://127.0.0.1:9200/topics

import { pathToFileURL } from "node:url";
import WebSocket from "ws";
import { Topics } from "../../dist/index.js";

const PAIRS = { EURUSD: [1.0842, 0.00004], GBPUSD: [1.2651, 0.00005], USDJPY: [149.62, 0.006] };

/** Publishes until it is stopped. Resolves then with how many ticks of each pair are stored. */
export function publishTicks(url, everyMillis = 50) {
  const topics = new Topics(url, { WebSocket, reconnect: { max: 1_000 } });
  const state = Object.entries(PAIRS).map(([pair, [price, step]]) => ({ pair, price, step, trend: 0 }));
  let number = 0;
  const open = new Set();
  const timer = setInterval(() => {
    number += 1;
    for (const it of state) {
      it.trend = 0.96 * it.trend + (Math.random() - 0.5) * it.step;
      it.price += it.trend;
      const tick = JSON.stringify({ number, price: it.price, time: Date.now() });
      const stored = topics.publish(`ticks.${it.pair}`, tick);
      open.add(stored);
      stored.catch((error) => console.error(error.message)).finally(() => open.delete(stored));
    }
  }, everyMillis);
  return async () => {
    clearInterval(timer);
    await Promise.all(open);
    await topics.close();
    return number;
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  publishTicks(process.argv[2] ?? "ws://127.0.0.1:9200/topics");
}
