// What both echo clients do, in Node and in a page. It names nothing from outside of the function: a page gets
// it as text.

/** Sends each message back. Returns the exit code, and what to print. */
export async function echo(unstall, url, byHand, more = {}) {
  const { Gap, Session } = unstall;
  const session = new Session(url, {
    acknowledge: byHand ? "by hand" : "taken",
    // A run has many faults, so a dead connection is to be noticed early.
    reconnect: { max: 1_000 },
    pingInterval: 250,
    silenceTimeout: 1_000,
    ...more,
  });
  try {
    for await (const batch of session.batches()) {
      for (const incoming of batch) {
        if (incoming instanceof Gap) return { code: 1, words: `gap: ${incoming}` };
        await session.send(incoming);
      }
      if (!byHand) continue;
      await session.delivered();
      session.acknowledge();
    }
    const { clean, error } = await session.closed;
    return clean ? { code: 0 } : { code: 2, words: `not closed in order: ${error?.message}` };
  } catch (error) {
    return { code: 2, words: `${error.message}` };
  }
}
