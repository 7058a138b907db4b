import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import {
  connect,
  Gap,
  type Incoming,
  Session,
  type SessionOptions,
  UnstallError,
} from "../../src/index.ts";
import { type Served, serve } from "../support/programs.ts";
import { FaultProxy, seeded, until } from "../support/proxy.ts";
import { closeBehindEach, directory } from "../support/topics.ts";

closeBehindEach();

const options = (more: SessionOptions = {}): SessionOptions => ({
  WebSocket: WebSocket as never,
  reconnect: { first: 20, max: 200 },
  ...more,
});

let server: Served;
let proxy: FaultProxy;
const open: Session[] = [];
const unhandled: unknown[] = [];
const note = (reason: unknown) => unhandled.push(reason);

beforeAll(async () => {
  process.on("unhandledRejection", note);
  server = await serve();
});
afterEach(async () => {
  for (const session of open.splice(0)) session.abort();
  await proxy?.stop();
});
afterAll(async () => {
  await server?.kill();
  process.off("unhandledRejection", note);
  expect(unhandled).toEqual([]);
});

async function session(path: string, more: SessionOptions = {}, through = server.url): Promise<Session> {
  const connected = await connect(`${through}${path}`, options(more));
  open.push(connected);
  return connected;
}

/** Receives so many messages. A gap is an error. */
async function receive(from: Session, count: number): Promise<Incoming[]> {
  const all: Incoming[] = [];
  if (count === 0) return all;
  for await (const incoming of from) {
    if (incoming instanceof Gap) throw new Error(`a gap: ${incoming}`);
    all.push(incoming);
    if (all.length === count) return all;
  }
  throw new Error(`the end after ${all.length} of ${count}`);
}

const text = (index: number) => `${index}:${"x".repeat(index % 50)}`;

/** Sends so many messages to the echo and checks that they come back, each once and in order. */
async function echoed(over: Session, count: number): Promise<void> {
  const sending = (async () => {
    for (let index = 0; index < count; index++) await over.send(text(index));
  })();
  const back = await receive(over, count);
  await sending;
  expect(back).toEqual(Array.from({ length: count }, (_, index) => text(index)));
}

describe("a session", () => {
  test("brings text as text and bytes as bytes, empty and long ones too", async () => {
    const over = await session("/echo", { session: "required" });
    expect(over.isSession).toBe(true);
    const long = new Uint8Array(200_000).map((_, index) => index);
    const sent = [
      "",
      "grün 🌱",
      new Uint8Array(0),
      new Uint8Array([1, 2, 255]),
      "y".repeat(100_000),
      long,
    ];
    for (const data of sent) await over.send(data);
    expect(await receive(over, sent.length)).toEqual(sent);
  });

  test("closes when everything is delivered, both ways", async () => {
    const over = await session("/echo");
    for (let index = 0; index < 1000; index++) await over.send(text(index));
    const reading = receive(over, 1000);
    await reading;
    const closed = await over.close({ code: 3001, reason: "done" });
    expect(closed).toMatchObject({ clean: true, code: 3001, reason: "done", undelivered: [] });
    expect(await over.receive()).toBe(undefined);
    await expect(over.send("late")).rejects.toMatchObject({ code: "closed" });
  });

  test("tells when everything is delivered", async () => {
    const over = await session("/sink");
    await over.send("hello");
    await over.delivered();
    expect(over.stats().unacknowledged).toBe(0);
  });

  test("is closed in time by an application that has stopped receiving", async () => {
    const over = await session("/packets");
    await over.send(JSON.stringify({ count: 100_000, size: 100 }));
    await receive(over, 10);
    const before = performance.now();
    const closed = await over.close({ within: 10_000 });
    expect(performance.now() - before).toBeLessThan(5_000);
    expect(closed.clean).toBe(false);
  });

  test("gives messages back with their fate when it cannot be closed in time", async () => {
    proxy = await FaultProxy.start(server.port);
    const over = await session("/echo", {}, proxy.url);
    proxy.freeze();
    await over.send("sent");
    await until(() => over.stats().packetsSent > 1, "the message is with the network");
    proxy.refuse();
    proxy.cut();
    await until(() => !over.isConnected, "the loss is noticed");
    await over.send("not sent");
    const closed = await over.close({ within: 300 });
    expect(closed).toMatchObject({ clean: false, error: { code: "timeout" } });
    expect(closed.undelivered).toEqual([
      { data: "sent", fate: "maybe delivered" },
      { data: "not sent", fate: "not sent" },
    ]);
  });

  test.each([1, 2, 3])("survives cuts at any byte: seed %i", async (seed) => {
    proxy = await FaultProxy.start(server.port);
    const random = seeded(seed);
    // Some within the handshake and the resume exchange, some later.
    proxy.nextLimit = () => Math.floor(random() < 0.3 ? random() * 900 : random() * 60_000);
    const over = new Session(`${proxy.url}/echo`, options());
    open.push(over);
    await echoed(over, 8_000);
    expect(proxy.cuts).toBeGreaterThan(10);
  });

  test("notices a network that has failed without a sign, and goes on over another connection", async () => {
    proxy = await FaultProxy.start(server.port);
    const over = await session("/echo", { pingInterval: 200, silenceTimeout: 600 }, proxy.url);
    await echoed(over, 10);
    proxy.freeze();
    await until(() => !over.isConnected, "silence is noticed");
    proxy.freeze(false);
    await echoed(over, 10);
  });

  test("is lost when the server restarts; the stream says so, and another one follows", async () => {
    const other = await serve();
    proxy = await FaultProxy.start(other.port);
    const over = await session("/echo", {}, `ws://127.0.0.1:${other.port}`);
    await echoed(over, 10);
    await other.kill();
    await until(() => !over.isConnected, "the loss is noticed");
    await over.send("for the old one");
    const again = await serve("serve", [], other.port);
    const gap = await over.receive();
    expect(gap).toBeInstanceOf(Gap);
    expect(gap).toMatchObject({ reason: "session lost", why: { code: "session" } });
    expect(over.takeUndelivered()).toEqual([{ data: "for the old one", fate: "not sent" }]);
    await echoed(over, 10);
    await again.kill();
  });

  test("ends with an error in the stream if no other session may follow", async () => {
    const other = await serve();
    const over = await session("/echo", { freshSession: false }, other.url);
    await other.kill();
    const again = await serve("serve", [], other.port);
    expect(await over.receive()).toBeInstanceOf(Gap);
    await expect(over.receive()).rejects.toMatchObject({ code: "session" });
    await again.kill();
  });

  test("receives as fast as the application takes: memory stays under the window", async () => {
    const over = await session("/packets", { window: 262_144, largestWindow: 262_144 });
    await over.send(JSON.stringify({ count: 100_000, size: 100 }));
    let most = 0;
    let count = 0;
    for await (const incoming of over) {
      most = Math.max(most, over.stats().untaken);
      if (incoming instanceof Uint8Array) {
        expect(new DataView(incoming.buffer, incoming.byteOffset).getBigUint64(0)).toBe(BigInt(count));
        count += 1;
        if (count % 10_000 === 0) await new Promise((resolve) => setTimeout(resolve, 50));
      } else {
        expect(incoming).toBe('{"done":100000}');
        break;
      }
    }
    expect(count).toBe(100_000);
    expect(most).toBeLessThanOrEqual(262_144);
    expect(most).toBeGreaterThan(100_000);
  });

  test("makes send wait while the server takes nothing, and bounds what is kept", async () => {
    proxy = await FaultProxy.start(server.port);
    const over = await session("/echo", { replay: 0, largestMessage: 65_536 }, proxy.url);
    proxy.freeze();
    let accepted = 0;
    while (over.trySend(new Uint8Array(1000))) accepted += 1;
    while (over.trySend("")) accepted += 1;
    expect(over.stats().unacknowledged).toBeLessThanOrEqual(65_600 + 131_072);
    expect(accepted).toBeGreaterThan(100);
    const waiting = over.send("after");
    const stop = new AbortController();
    const stopped = over.send("never", { signal: stop.signal });
    stop.abort();
    await expect(stopped).rejects.toMatchObject({ code: "aborted" });
    proxy.freeze(false);
    const back = await receive(over, accepted + 1);
    await waiting;
    expect(back.at(-1)).toBe("after");
  });

  test("is acknowledged by hand only when the application says so", async () => {
    const over = await session("/echo", { acknowledge: "by hand" });
    for (const data of ["a", "b", "c"]) await over.send(data);
    await receive(over, 1);
    const first = over.position;
    await receive(over, 2);
    over.acknowledge(first);
    over.acknowledge();
    // The server closes in order only if all of its messages are processed.
    expect(await over.close()).toMatchObject({ clean: true });
  });

  test("refuses a message that is larger than the server accepts", async () => {
    const over = await session("/echo");
    const error = await over.send(new Uint8Array(9 << 20)).catch((it: unknown) => it);
    expect(error).toBeInstanceOf(UnstallError);
    expect(error).toMatchObject({ code: "too-large", retryable: false });
  });

  test("ends at once by its signal, and leaves nothing behind", async () => {
    const stop = new AbortController();
    const over = await session("/echo", { signal: stop.signal });
    const receiving = over.receive();
    stop.abort();
    await expect(receiving).rejects.toMatchObject({ code: "aborted" });
    expect(await over.closed).toMatchObject({ clean: false, error: { code: "aborted" } });
    expect(over.isConnected).toBe(false);
  });
});

describe("connecting", () => {
  test("fails when each server was tried once", async () => {
    const failing = connect(["ws://127.0.0.1:9/a", "ws://127.0.0.1:9/b"], options());
    await expect(failing).rejects.toMatchObject({ code: "connect", retryable: true });
  });

  test("goes to the next server when one is not there", async () => {
    const over = await connect(["ws://127.0.0.1:9", `${server.url}/echo`], options());
    open.push(over);
    await echoed(over, 3);
  });

  test("is refused for URLs that make no sense, before anything is dialed", async () => {
    for (const url of ["ftp://x", "wss://user:secret@host/", "::", ""]) {
      expect(() => new Session(url, options())).toThrow(expect.objectContaining({ code: "options" }));
    }
  });

  test("asks for a token at each attempt, and carries it in the list of subprotocols", async () => {
    const offered: string[] = [];
    const foreign = new WebSocketServer({
      port: 0,
      handleProtocols: (protocols) => {
        offered.push([...protocols].at(-1)!);
        return "feed";
      },
    });
    await new Promise((resolve) => foreign.once("listening", resolve));
    let tokens = 0;
    const { port } = foreign.address() as { port: number };
    const token = async () => `tökén ${++tokens}`;
    const over = await connect(
      `ws://127.0.0.1:${port}`,
      options({ token, session: "never", protocols: ["feed"] }),
    );
    open.push(over);
    for (const socket of foreign.clients) socket.terminate();
    await until(() => offered.length === 2, "it connects again");
    const plain = offered.map((it) =>
      Buffer.from(it.replace("unstall.bearer.", ""), "base64url").toString(),
    );
    expect(plain).toEqual(["tökén 1", "tökén 2"]);
    over.abort();
    foreign.close();
  });

  test("a server that wants a token lets in who has it, and nobody else", async () => {
    const file = join(await directory(), "token");
    writeFileSync(file, "a-secret.token_1");
    const guarded = await serve("serve", ["--token", file]);
    await expect(connect(guarded.url, options())).rejects.toMatchObject({ code: "connect" });
    await expect(connect(guarded.url, options({ token: "wrong" }))).rejects.toMatchObject({
      code: "connect",
    });
    const over = await session("/echo", { token: () => "a-secret.token_1" }, guarded.url);
    await echoed(over, 10);
    await guarded.kill();
  });

  test("a token function that fails is an error, and is asked again", async () => {
    let calls = 0;
    const token = () => {
      calls += 1;
      if (calls < 3) throw new Error("no network");
      return "x";
    };
    const failing = connect(server.url, options({ token }));
    await expect(failing).rejects.toMatchObject({ code: "token", retryable: true });
    const over = new Session(server.url, options({ token }));
    open.push(over);
    await over.opened;
    expect(calls).toBe(3);
  });
});

describe("with a server that has no sessions", () => {
  test("the connection is plain and says so", async () => {
    const plain = await serve("serve", ["--plain"]);
    const over = await session("/echo", { session: "offered" }, plain.url);
    expect(over.isSession).toBe(false);
    await echoed(over, 1000);
    await expect(over.delivered()).rejects.toMatchObject({ code: "plain" });
    await over.close();
    expect(await over.receive()).toBe(undefined);
    await plain.kill();
  });

  // Once a plain connection kept a view of a `Buffer`, whose `slice` copies nothing: what the application wrote
  // into it later was sent.
  test("the bytes of a Buffer are sent as they were when they were accepted", async () => {
    const plain = await serve("serve", ["--plain"]);
    const over = await session("/echo", { session: "offered" }, plain.url);
    const data = Buffer.from("accepted");
    expect(over.trySend(data)).toBe(true);
    data.fill("x");
    expect(Buffer.from((await over.receive()) as Uint8Array).toString()).toBe("accepted");
    await plain.kill();
  });

  test("a connection that was lost is a gap in the stream", async () => {
    const plain = await serve("serve", ["--plain"]);
    proxy = await FaultProxy.start(plain.port);
    const over = await session("/echo", { session: "offered" }, proxy.url);
    await echoed(over, 10);
    proxy.cut();
    expect(await over.receive()).toMatchObject({ reason: "reconnected" });
    await echoed(over, 10);
    await plain.kill();
  });

  test("a session that is required is refused", async () => {
    const plain = await serve("serve", ["--plain"]);
    await expect(connect(plain.url, options())).rejects.toMatchObject({ code: "connect" });
    await plain.kill();
  });
});
