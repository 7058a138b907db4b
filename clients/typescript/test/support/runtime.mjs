// Sessions and topics in whatever runtime runs this: Node, Deno or Bun. Prints what happened as JSON.
import { connect, Gap, Topics } from "../../dist/index.js";

const [echo, node] = (globalThis.process?.argv ?? []).slice(2);
const COUNT = 10_000;
const text = (index) => `${index}:${"ü".repeat(index % 30)}`;
const bytes = (index) => new Uint8Array(index % 70).fill(index);
const same = (one, other) => one.length === other.length && one.every((it, at) => it === other[at]);

/** Each message comes back as it was, once and in order. */
async function session() {
  const over = await connect(echo, { reconnect: { first: 20, max: 200 } });
  let resumed = 0;
  over.addEventListener("resumed", () => {
    resumed += 1;
  });
  const sending = (async () => {
    for (let index = 0; index < COUNT; index++) await over.send(index % 2 ? text(index) : bytes(index));
  })();
  let index = 0;
  for await (const incoming of over) {
    if (incoming instanceof Gap) throw new Error(`a gap: ${incoming}`);
    const isSame = index % 2 ? incoming === text(index) : same(incoming, bytes(index));
    if (!isSame) throw new Error(`message ${index} is ${incoming}`);
    index += 1;
    if (index === COUNT) break;
  }
  await sending;
  await over.delivered();
  const { clean, code } = await over.close();
  return { messages: index, resumed: resumed > 0, clean, code };
}

/** Each message is stored once, and delivered once and in order. */
async function topics() {
  const client = new Topics(node, { reconnect: { first: 20, max: 200 } });
  let lost = 0;
  client.addEventListener("disconnected", () => {
    lost += 1;
  });
  const topic = `runtime.${globalThis.crypto.randomUUID()}`;
  const publishing = (async () => {
    for (let first = 0; first < COUNT; first += 1_000) {
      const part = Array.from({ length: 1_000 }, (_, at) => first + at);
      const all = part.map((at) => ({ topic, data: text(at), final: at === COUNT - 1 }));
      for (const it of await client.publishMany(all)) if (it instanceof Error) throw it;
    }
  })();
  let index = 0;
  for await (const delivery of client.subscribe(topic)) {
    if (delivery.data !== text(index)) throw new Error(`delivery ${index} is ${delivery.type}`);
    index += 1;
  }
  await publishing;
  await client.close();
  return { messages: index, lost: lost > 0 };
}

console.log(JSON.stringify({ session: await session(), topics: await topics() }));
