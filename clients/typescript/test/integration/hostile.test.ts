import { readFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import * as wire from "../../src/core/packet.ts";
import { Gap, Session, type SessionOptions } from "../../src/index.ts";
import { repeated, unhex } from "../support/hex.ts";
import { until } from "../support/proxy.ts";
import { ServerSession } from "../support/server-session.ts";

// A server that breaks the protocol: an error, bounded memory, no unhandled rejection, nothing left behind.

const { malformed } = JSON.parse(
  readFileSync(new URL("../../../../vectors/packets.json", import.meta.url), "utf8"),
) as { malformed: { name: string; hex: string; error: string }[] };

let server: WebSocketServer;
let url: string;
let connections = 0;
/** What the server does once it has welcomed a session. */
let behave: (socket: WebSocket) => void = () => {};
/** What it does instead of welcoming one. */
let answer: ((socket: WebSocket) => void) | undefined;
const unhandled: unknown[] = [];
const note = (reason: unknown) => unhandled.push(reason);

beforeAll(async () => {
  process.on("unhandledRejection", note);
  process.on("uncaughtException", note);
  server = new WebSocketServer({ port: 0, handleProtocols: () => "unstall.v1" });
  await new Promise((resolve) => server.once("listening", resolve));
  url = `ws://127.0.0.1:${(server.address() as { port: number }).port}`;
  server.on("connection", (socket) => {
    connections += 1;
    socket.once("message", (hello: Buffer) => {
      if (answer) return answer(socket);
      const token = new Uint8Array(16).fill(9);
      const session = ServerSession.open({}, wire.decode(hello), 7, token);
      // It does not remember sessions.
      if (!(session instanceof ServerSession)) return socket.close();
      socket.send(session.transmit(0, session.generation)!);
      behave(socket);
    });
  });
});
const open: Session[] = [];
afterEach(() => {
  for (const session of open.splice(0)) session.abort();
  answer = undefined;
  behave = () => {};
  connections = 0;
});
afterAll(async () => {
  server.close();
  expect(unhandled).toEqual([]);
  process.off("unhandledRejection", note);
  process.off("uncaughtException", note);
});

function session(more: SessionOptions = {}): Session {
  const one = new Session(url, {
    WebSocket: WebSocket as never,
    freshSession: false,
    reconnect: { first: 10, max: 50 },
    ...more,
  });
  open.push(one);
  return one;
}

/** What the application sees: the messages, and the error at the end. */
async function fateOf(over: Session): Promise<{ messages: unknown[]; error: unknown }> {
  const messages: unknown[] = [];
  try {
    for await (const incoming of over) messages.push(incoming);
  } catch (error) {
    return { messages, error };
  }
  return { messages, error: undefined };
}

async function expectBroken(over: Session): Promise<void> {
  const { messages, error } = await fateOf(over);
  expect(error).toMatchObject({ code: "peer" });
  expect(messages.at(-1)).toBeInstanceOf(Gap);
  expect(over.isConnected).toBe(false);
  expect((await over.closed).clean).toBe(false);
}

describe("a server that breaks the protocol", () => {
  test.each(malformed.filter((it) => it.error !== "SEQUENCE_GAP"))(
    "ends the session: $name",
    async ({ hex }) => {
      behave = (socket) => socket.send(unhex(hex));
      await expectBroken(session());
    },
  );

  test("ends the session by a text message", async () => {
    behave = (socket) => socket.send("hello");
    await expectBroken(session());
  });

  test("ends the session by more than its credit, and what it sent before is bounded", async () => {
    behave = (socket) => {
      let first = 1n;
      const timer = setInterval(() => {
        for (let index = 0; index < 20; index++) {
          const head = Buffer.alloc(13);
          head[0] = wire.DATA;
          head.writeBigUint64BE(first++, 1);
          head.writeUInt32BE(0x80000000 + 60_000 * 4, 9);
          socket.send(Buffer.concat([head, repeated({ byte: 1, length: 60_000 })]));
        }
      }, 1);
      socket.once("close", () => clearInterval(timer));
    };
    const over = session({ window: 262_144, largestWindow: 262_144 });
    await over.closed;
    const { messages, error } = await fateOf(over);
    expect(error).toMatchObject({ code: "peer" });
    expect(messages.length).toBeLessThanOrEqual(5);
  });

  test("ends the connection by a WebSocket message that is no packet, before it fills the memory", async () => {
    const reasons: string[] = [];
    behave = (socket) => socket.send(Buffer.alloc(50 << 20));
    const over = session();
    over.addEventListener("disconnected", ({ detail }) => reasons.push(detail.why.code));
    await until(() => reasons.length > 2, "the connection is lost, again and again");
    expect(reasons.every((code) => code === "lost")).toBe(true);
  });

  test("is left alone longer and longer if it ends every session at once", async () => {
    behave = (socket) => socket.send(wire.encode([wire.ABORT, 12, "no"]));
    const over = session({ freshSession: true, reconnect: { first: 100, max: 10_000 } });
    const gaps: unknown[] = [];
    void (async () => {
      for await (const incoming of over) gaps.push(incoming);
    })().catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(gaps.length).toBeGreaterThan(0);
    expect(connections).toBeLessThan(20);
  });

  test("that rejects a session for good is believed", async () => {
    answer = (socket) => socket.send(wire.encode([wire.REJECT, 3, 0]));
    const over = session();
    const { error } = await fateOf(over);
    expect(error).toMatchObject({ code: "session" });
    expect(connections).toBe(1);
  });

  test("that has no room is asked again after the time that it says", async () => {
    const times: number[] = [];
    answer = (socket) => {
      times.push(performance.now());
      socket.send(wire.encode([wire.REJECT, 5, 300]));
    };
    session();
    await until(() => times.length === 3, "it is asked three times");
    expect(times[1]! - times[0]!).toBeGreaterThanOrEqual(290);
    expect(times[2]! - times[1]!).toBeGreaterThanOrEqual(290);
  });

  test("that agrees to a session and does not answer is asked for one again: no plain connection", async () => {
    answer = () => {};
    const over = session({ session: "offered" });
    await until(() => connections === 2, "it is asked again after the handshake's ten seconds", 15_000);
    expect(over.isSession).toBe(true);
    expect([...server.clients].every((socket) => socket.protocol === "unstall.v1")).toBe(true);
  });

  test("leaves no timer and no socket behind", async () => {
    behave = (socket) => socket.send(unhex("00"));
    await expectBroken(session());
    await until(() => server.clients.size === 0, "the socket is closed");
    const resources = (
      process as unknown as { getActiveResourcesInfo(): string[] }
    ).getActiveResourcesInfo();
    const before = resources.filter((it) => it === "Timeout").length;
    await expectBroken(session());
    await until(() => server.clients.size === 0, "the socket is closed");
    const after = (process as unknown as { getActiveResourcesInfo(): string[] })
      .getActiveResourcesInfo()
      .filter((it) => it === "Timeout").length;
    expect(after).toBeLessThanOrEqual(before + 1);
  });
});
