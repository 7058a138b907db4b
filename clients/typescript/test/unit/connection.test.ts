import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Carried, Connector } from "../../src/connection.ts";
import { RECONNECT_FIRST } from "../../src/defaults.ts";

// A page that was offline for a moment stayed without a connection for as long as its options let it wait: the
// event `online` came while the attempt of the network that was had not failed yet, and was forgotten.

/** What a connector does with a WebSocket; the test opens and closes it. */
class Socket {
  static all: Socket[] = [];
  binaryType = "";
  protocol = "";
  bufferedAmount = 0;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: (() => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  constructor() {
    Socket.all.push(this);
  }
  send() {}
  close() {}
  fails() {
    this.onclose?.({ code: 1006, reason: "" });
  }
}

const carried: Carried = {
  protocols: ["a"],
  opened: () => {},
  packet: () => {},
  text: () => {},
  ping: () => true,
  lost: () => ({ again: true, progressed: false }),
  gaveUp: () => {},
  writable: () => {},
  report: () => {},
};

/** How many attempts there were, once everything that is due now has been done. */
async function attempts(within = 0): Promise<number> {
  await vi.advanceTimersByTimeAsync(within);
  return Socket.all.length;
}

const last = () => Socket.all.at(-1)!;
const online = () => globalThis.dispatchEvent(new Event("online"));
let connector: Connector;

beforeEach(async () => {
  vi.useFakeTimers();
  const page = new EventTarget();
  vi.stubGlobal("navigator", { onLine: true });
  vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
  vi.stubGlobal("dispatchEvent", page.dispatchEvent.bind(page));
  vi.spyOn(Math, "random").mockReturnValue(0.99);
  Socket.all = [];
  const options = { WebSocket: Socket as never, reconnect: { first: 600_000, max: 600_000 } };
  connector = new Connector("ws://localhost/", carried, options);
  connector.start();
  expect(await attempts()).toBe(1);
});

afterEach(() => {
  connector.stop();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test("without a word of the browser the next attempt comes when its wait is over", async () => {
  last().fails();
  expect(await attempts(590_000)).toBe(1);
  expect(await attempts(10_000)).toBe(2);
});

test("a network that is back ends the wait", async () => {
  last().fails();
  expect(await attempts(1_000)).toBe(1);
  online();
  expect(await attempts(RECONNECT_FIRST)).toBe(2);
});

test("a network that is back during an attempt shortens the wait when that attempt fails", async () => {
  online();
  expect(await attempts(1_000)).toBe(1);
  last().fails();
  expect(await attempts(RECONNECT_FIRST)).toBe(2);
  last().fails();
  expect(await attempts(590_000)).toBe(2);
});

test("a network that is back before the old connection is known to be lost shortens the wait, too", async () => {
  last().onopen!();
  online();
  last().fails();
  expect(await attempts(RECONNECT_FIRST)).toBe(2);
});
