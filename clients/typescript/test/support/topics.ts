/** What tests of topics share: hubs, clients and directories that are closed behind each test. */

import { createHmac } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach } from "vitest";
import WebSocket from "ws";
import { type Delivery, Topics, type TopicsOptions } from "../../src/index.ts";
import { Hub } from "./hub.ts";

/** What a test has opened, in order. */
export const opened: (() => Promise<unknown>)[] = [];

/** Closes everything behind each test. */
export function closeBehindEach(): void {
  afterEach(async () => {
    for (const close of opened.splice(0).reverse()) await close();
  });
}

export async function hubOf(...args: string[]): Promise<Hub> {
  const hub = await Hub.start(...args);
  opened.push(() => hub.kill());
  return hub;
}

export async function directory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "unstall-"));
  opened.push(() => rm(path, { recursive: true }));
  return path;
}

/** A client whose attempts follow quickly. */
export function topicsOf(urls: string | string[], options: TopicsOptions = {}): Topics {
  const reconnect = { first: 20, max: 100 };
  const topics = new Topics(urls, { WebSocket: WebSocket as never, reconnect, ...options });
  opened.push(() => topics.close({ within: 0 }));
  return topics;
}

/** The texts of the messages; other deliveries by their type. */
export async function textsOf(deliveries: AsyncIterable<Delivery>, count = Number.POSITIVE_INFINITY) {
  const texts: string[] = [];
  for await (const delivery of deliveries) {
    texts.push(delivery.type === "message" ? `${delivery.data}` : delivery.type);
    if (texts.length >= count) break;
  }
  return texts;
}

export const numbers = (count: number, first = 1) =>
  Array.from({ length: count }, (_, at) => `${first + at}`);

/** A JSON Web Token that expires in so many milliseconds. */
export function jwt(key: string, claims: object, livesFor = 60_000): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  // A test may set the clock of `Date` wrong.
  const exp = (performance.timeOrigin + performance.now() + livesFor) / 1_000;
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ exp, ...claims })}`;
  return `${signed}.${createHmac("sha256", key).update(signed).digest("base64url")}`;
}
