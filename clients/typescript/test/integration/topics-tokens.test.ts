import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import type { TopicsOptions } from "../../src/index.ts";
import {
  closeBehindEach,
  directory,
  hubOf,
  jwt,
  numbers,
  textsOf,
  topicsOf,
} from "../support/topics.ts";

closeBehindEach();

const KEY = "0123456789abcdef0123456789abcdef";
const ALL = { pub: [">"], sub: [">"] };

async function guarded() {
  const path = await directory();
  await writeFile(`${path}/key`, KEY);
  return hubOf("--store", `${path}/store`, "--token-key", `${path}/key`);
}

async function clientOf(token: TopicsOptions["token"], options: TopicsOptions = {}) {
  const hub = await guarded();
  return topicsOf(hub.url, { ...(token ? { token } : {}), ...options });
}

test("a token lets in who it names", async () => {
  const topics = await clientOf(jwt(KEY, ALL));
  await topics.publish("t", "m");
  expect(await textsOf(topics.subscribe("t"), 1)).toEqual(["m"]);
});

test("a fixed token that is wrong ends the client, and everybody learns why", async () => {
  const topics = await clientOf(jwt("another key that is long enough!!", ALL));
  const next = topics.subscribe("t").next();
  await expect(next).rejects.toMatchObject({ code: "rejected", retryable: false });
  await expect(topics.publish("t", "m")).rejects.toMatchObject({ reason: "not sent" });
});

test("a token function that gives a wrong token first is asked again", async () => {
  let asked = 0;
  const topics = await clientOf(() => jwt(asked++ === 0 ? "x".repeat(32) : KEY, ALL));
  await topics.publish("t", "m");
  expect(asked).toBe(2);
});

test("a token function that gives the same wrong token again ends the client", async () => {
  const wrong = jwt("x".repeat(32), ALL);
  const topics = await clientOf(() => wrong);
  await expect(topics.publish("t", "m")).rejects.toMatchObject({ reason: "not sent" });
});

test("a token that allows one topic ends subscriptions to others, and refuses messages there", async () => {
  const topics = await clientOf(jwt(KEY, { pub: ["a.*"], sub: ["a.*"] }));
  await topics.publish("a.b", "m");
  await expect(topics.publish("b", "m")).rejects.toMatchObject({
    reason: "not allowed",
    mayBeStored: false,
  });
  await expect(topics.subscribe(">").next()).rejects.toMatchObject({ code: "rejected" });
  expect(await textsOf(topics.subscribe("a.*"), 1)).toEqual(["m"]);
});

test("a token that expires is renewed before, on the same connection", async () => {
  let asked = 0;
  const topics = await clientOf(() => {
    asked++;
    return jwt(KEY, ALL, 2_000);
  });
  const subscription = topics.subscribe("t");
  const sent = numbers(35);
  const all = textsOf(subscription, sent.length);
  for (const data of sent) {
    await topics.publish("t", data);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  expect(await all).toEqual(sent);
  expect(asked).toBeGreaterThan(1);
  expect(topics.stats.connections).toBe(1);
});

test("with a token whose expiry the client cannot see, subscriptions and messages go on with the next one", async () => {
  let now = 0;
  const topics = await clientOf(async () => {
    // The clock of this client is wrong: it takes each token for one that lives long.
    const token = jwt(KEY, ALL, 1_200);
    now++;
    return token;
  });
  const real = Date.now;
  const sent = numbers(30);
  const all = textsOf(topics.subscribe("t"), sent.length);
  await topics.publish("t", sent[0]!);
  try {
    Date.now = () => real() - 3_600_000;
    for (const data of sent.slice(1)) {
      await topics.publish("t", data);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  } finally {
    Date.now = real;
  }
  expect(await all).toEqual(sent);
  expect(now).toBeGreaterThan(1);
});

test("a token function that fails is told, and asked again", async () => {
  let asked = 0;
  const topics = await clientOf(() => {
    if (asked++ < 2) throw new Error("the session is over");
    return jwt(KEY, ALL);
  });
  const told: string[] = [];
  topics.addEventListener("attemptfailed", ({ detail }) => told.push(detail.why.code));
  await topics.publish("t", "m");
  expect(told).toEqual(["token", "token"]);
});

test("no error and no event shows a token", async () => {
  const secret = jwt("x".repeat(32), ALL);
  const topics = await clientOf(secret);
  const told: unknown[] = [];
  for (const name of ["attemptfailed", "disconnected"] as const)
    topics.addEventListener(name, ({ detail }) => told.push(detail.why));
  const error = await topics
    .subscribe("t")
    .next()
    .catch((it) => it);
  const words = [error, ...told].map((it) => `${it.message} ${it.stack} ${it.cause}`).join();
  expect(words).not.toContain(secret.slice(-40));
});
