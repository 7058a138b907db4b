// One measurement of topics, in Node or in a page: messages that the log has already. Returns messages per second.

/** Publishes `count` messages of `size` bytes to `topic`, each with its index. */
export async function prepare({ unstall, WebSocket, hub, topic, size, count }) {
  const topics = new unstall.Topics(hub, { WebSocket });
  for (let first = 0; first < count; first += 10_000) {
    const batch = [];
    for (let index = first; index < Math.min(first + 10_000, count); index++) {
      const data = new Uint8Array(size);
      new DataView(data.buffer).setUint32(4, index);
      batch.push({ topic, data });
    }
    for (const it of await topics.publishMany(batch)) if (it instanceof Error) throw it;
  }
  await topics.close();
}

/** Reads them: each must be the next one. */
export async function read({ unstall, WebSocket, hub, topic, size, count, how }) {
  const topics = new unstall.Topics(hub, WebSocket ? { WebSocket } : {});
  const subscription = topics.subscribe(topic);
  const begin = performance.now();
  let index = 0;
  const check = ({ data }) => {
    const found = (data[4] << 24) | (data[5] << 16) | (data[6] << 8) | data[7];
    if (data.length !== size || found !== index) throw new Error(`message ${found} instead of ${index}`);
    return ++index === count;
  };
  if (how === "batches") {
    for await (const batch of subscription.batches()) if (batch.some(check)) break;
  } else {
    for await (const delivery of subscription) if (check(delivery)) break;
  }
  const rate = count / ((performance.now() - begin) / 1000);
  await topics.close();
  return rate;
}
