import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { WebSocketServer } from "ws";
import { utf8 } from "../../src/core/bytes.ts";
import { packet, u32, unhex } from "../../src/core/topics/bytes.ts";
import { type UnstallError, UnstallError as UnstallErrorClass } from "../../src/index.ts";
import { until } from "../support/proxy.ts";
import { closeBehindEach, opened, topicsOf } from "../support/topics.ts";

closeBehindEach();

const unhandled: unknown[] = [];
process.on("unhandledRejection", (error) => unhandled.push(error));

afterEach(() => expect(unhandled.splice(0)).toEqual([]));

const LOG = "10".repeat(16);

function welcome(last = 0): Uint8Array {
  const writer = packet(0x02)
    .raw(unhex(LOG))
    .u64(last + 1)
    .u64(last)
    .u64(1 << 20);
  return u32(writer.u64(1 << 20).u64(0), 10)
    .u8(1)
    .done();
}

const subscribed = () => u32(packet(0x21), 1).u64(0).u64(0).u64(0).u64(0).done();

/** One record of a message, in a packet of the subscription 1. */
function message(offset: number, size: number, continues = false, first = true): Uint8Array {
  const writer = u32(packet(0x22, size + 100), 1).varint(8 * size + (continues ? 2 : 0));
  if (first) writer.varint(offset).varint(1).u8(1).raw(utf8("t"));
  return writer.raw(new Uint8Array(size)).done();
}

type Answer = (send: (bytes: Uint8Array | string) => void, packet: Buffer, connection: number) => void;

/** A node that answers each packet as the test says. */
async function node(
  answer: Answer,
): Promise<{ url: string; received: Buffer[]; connections: () => number }> {
  const server = new WebSocketServer({
    port: 0,
    host: "127.0.0.1",
    handleProtocols: (all) => [...all][0]!,
  });
  await once(server, "listening");
  opened.push(async () => {
    for (const client of server.clients) client.terminate();
    server.close();
  });
  const received: Buffer[] = [];
  let connections = 0;
  server.on("connection", (socket) => {
    const connection = ++connections;
    socket.on("error", () => {});
    socket.on("message", (data: Buffer) => {
      received.push(data);
      answer((bytes) => socket.send(bytes), data, connection);
    });
  });
  const { port } = server.address() as AddressInfo;
  return { url: `ws://127.0.0.1:${port}`, received, connections: () => connections };
}

/** Why connections were lost. */
function losses(topics: EventTarget): UnstallError[] {
  const all: UnstallError[] = [];
  topics.addEventListener("disconnected", (event) => {
    all.push((event as CustomEvent).detail.why);
  });
  return all;
}

const HELLO = 0x01;
const SUBSCRIBE = 0x20;
const CREDIT = 0x25;
const ABORT = 0x1a;

const malformed: [string, (Uint8Array | string)[]][] = [
  ["a text message", ["hello"]],
  ["nothing at all", [new Uint8Array(0)]],
  ["an unknown kind", [new Uint8Array([0x7f])]],
  ["a second WELCOME", [welcome(), welcome()]],
  ["a packet that is too long", [welcome(), message(1, 66_000)]],
  ["random bytes", [new Uint8Array(500).map((_, at) => (at * 7_919) % 256)]],
  ["messages of a subscription that was never made", [welcome(), message(1, 10)]],
  [
    "an answer to what was not published",
    [welcome(), packet(0x31).u8(1).u64(1).varint(1).varint(1).done()],
  ],
  [
    "answers without end",
    [
      welcome(),
      packet(0x31)
        .u8(1)
        .u64(1)
        .varint(2 ** 40)
        .varint(1)
        .done(),
    ],
  ],
];

for (const [what, packets] of malformed) {
  test(`a node that sends ${what} is told so and left, and tried again later`, async () => {
    const { url, received, connections } = await node((send, data) => {
      if (data[0] === HELLO) for (const bytes of packets) send(bytes);
    });
    const topics = topicsOf(url);
    const lost = losses(topics);
    await until(() => received.some((it) => it[0] === ABORT), "ABORT");
    await until(() => lost.length > 0, "the loss");
    expect(lost[0]).toBeInstanceOf(UnstallErrorClass);
    expect(lost[0]!.code).toBe("peer");
    await until(() => connections() > 1, "another attempt");
    expect(received.filter((it) => it[0] === HELLO).length).toBeLessThanOrEqual(connections());
  });
}

test("a node that sends beyond the credit is left, and what it sent is bounded", async () => {
  const { url } = await node((send, data, connection) => {
    if (connection > 1) return;
    if (data[0] === HELLO) send(welcome(1_000_000));
    if (data[0] !== SUBSCRIBE) return;
    send(subscribed());
    for (let offset = 1; offset <= 1_000; offset++) send(message(offset, 10_000));
  });
  const topics = topicsOf(url);
  const lost = losses(topics);
  const subscription = topics.subscribe("t", { window: 262_144 });
  await until(() => lost.length > 0, "the loss");
  expect(lost[0]!.message).toContain("CREDIT_EXCEEDED");
  expect(subscription.stats.waitingBytes).toBeLessThanOrEqual(262_144);
});

test("a node whose message never ends is left at the largest message", async () => {
  let sent = 0;
  const { url } = await node((send, data, connection) => {
    if (connection > 1) return;
    if (data[0] === HELLO) send(welcome(1));
    if (data[0] === SUBSCRIBE) send(subscribed());
    if (data[0] !== SUBSCRIBE && data[0] !== CREDIT) return;
    const granted = Number(data.readBigUInt64BE(5));
    for (; sent + 65_065 <= granted; sent += 65_064) send(message(1, 65_000, true, sent === 0));
  });
  const topics = topicsOf(url, { maxMessageBytes: 500_000 });
  const lost = losses(topics);
  const subscription = topics.subscribe("t", { window: 262_144 });
  await until(() => lost.length > 0, "the loss");
  expect(lost[0]!.message).toContain("MESSAGE_TOO_LARGE");
  expect(subscription.stats.partialBytes).toBe(0);
});

test("gaps and marks without end are few for an application that takes none", async () => {
  let sent = 0;
  const { url } = await node((send, data) => {
    if (data[0] === HELLO) send(welcome());
    if (data[0] !== SUBSCRIBE) return;
    send(subscribed());
    for (let offset = 1; offset <= 20_000; offset++) {
      send(
        u32(packet(0x23), 1)
          .u8(1 + 3 * (offset % 2))
          .u8(0)
          .u64(offset - 1)
          .u64(offset)
          .done(),
      );
      send(u32(packet(0x24), 1).u64(offset).u64(1).done());
      sent = offset;
    }
    send(packet(0x14).u64(1).done());
  });
  const topics = topicsOf(url);
  const subscription = topics.subscribe("t", { caughtUp: true });
  await until(() => sent === 20_000, "all of them");
  await until(() => subscription.stats.creditBytes > 0, "SUBSCRIBED");
  await new Promise((resolve) => setTimeout(resolve, 300));
  const got = [];
  for (let it = subscription.read(); it; it = subscription.read()) got.push(it.type);
  expect(got.length).toBeLessThanOrEqual(3);
  expect(got).toContain("gap");
});

test("a node that never answers HELLO is left for silence", async () => {
  const { url, connections } = await node(() => {});
  const topics = topicsOf(url, { pingInterval: 50, silenceTimeout: 150 });
  const lost = losses(topics);
  await until(() => connections() > 1, "another attempt");
  expect(lost[0]!.code).toBe("lost");
});

test("behind close nothing is left: no timer, no socket, no attempt", async () => {
  const { url, connections } = await node((send, data) => {
    if (data[0] === HELLO) send(welcome());
  });
  const before = process.getActiveResourcesInfo().filter((it) => it === "Timeout").length;
  const topics = topicsOf(url);
  const publishing = topics.publish("t", "m");
  const failed = publishing.catch((error) => error);
  await until(() => topics.stats.node !== undefined, "WELCOME");
  await topics.close({ within: 50 });
  expect(await failed).toMatchObject({ reason: "no answer", mayBeStored: true });
  const attempts = connections();
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(connections()).toBe(attempts);
  expect(process.getActiveResourcesInfo().filter((it) => it === "Timeout").length).toBeLessThanOrEqual(
    before,
  );
});
