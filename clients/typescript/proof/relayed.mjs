/** So many messages may be published and have no answer. */
const OPEN = 1_000;

/** The verifier expects another exit code for it. */
export class GapFound extends Error {
  name = "GapFound";
}

/**
 * Publishes each message of verify.in to verify.out, and resolves with their count when all are stored, behind
 * the final one. Rejects if anything is missing, or may be.
 */
export async function relayed(topics) {
  const open = [];
  let count = 0;
  let isComplete = false;
  for await (const delivery of topics.subscribe("verify.in")) {
    if (delivery.type === "gap")
      throw new GapFound(`a gap: messages may be missing: ${delivery.reason}`);
    if (delivery.type !== "message") continue;
    const { data, final } = delivery;
    open.push(topics.publish("verify.out", data, { final }));
    count += 1;
    isComplete = final;
    if (open.length >= OPEN) await open.shift();
  }
  await Promise.all(open);
  if (!isComplete) throw new Error("the topic ended without its final message");
  return count;
}
