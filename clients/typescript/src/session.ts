import type { Undelivered } from "./core/outbox.ts";
import { Engine } from "./engine.ts";
import { UnstallError } from "./errors.ts";
import type { Closed, SessionEvents } from "./events.ts";
import type { SessionOptions } from "./options.ts";
import { type Incoming, type Position, QueueIterator } from "./queue.ts";
import { messageOf, type Sendable } from "./sendable.ts";
import { onAbort } from "./soon.ts";

/** How to close a session. */
export interface CloseOptions {
  /** The code that the server is told: 1000, or one from 3000 to 4999. Default 1000. */
  code?: number;
  /** For people. At most 123 bytes of UTF-8; the rest is cut. */
  reason?: string;
  /** For the whole close, in milliseconds. Default 5,000. */
  within?: number;
}

/** How a session ended, and what it did not deliver. */
export interface CloseResult extends Closed {
  /** The messages that the server did not acknowledge, in order, each with its fate. */
  undelivered: Undelivered[];
}

/** How full everything is, and what was counted. Sizes are bytes. */
export interface Stats {
  /** Whether a connection is open. */
  isConnected: boolean;
  /** Connections so far. */
  connections: number;
  /** Messages of the present session that were accepted for sending. */
  messagesSent: number;
  packetsSent: number;
  packetsReceived: number;
  /** Records that were sent again after a resume. */
  replayed: number;
  /** Records that came twice and were dropped. */
  duplicates: number;
  /** The cost of what was accepted and not acknowledged: at most `replay`. */
  unacknowledged: number;
  /** The cost of what was received and not taken: at most `largestWindow` and one message. */
  untaken: number;
  /** How much the server may send ahead of the application at present. */
  window: number;
  /** What sending waits for, if something waits. */
  waitsFor: "connection" | "credit" | undefined;
}

type Listener<Name extends keyof SessionEvents> = (event: CustomEvent<SessionEvents[Name]>) => void;

/** An event of a {@link Session}: `detail` has what {@link SessionEvents} says. */
export interface Session {
  addEventListener<Name extends keyof SessionEvents>(
    name: Name,
    listener: Listener<Name>,
    options?: AddEventListenerOptions | boolean,
  ): void;
  addEventListener(
    name: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: AddEventListenerOptions | boolean,
  ): void;
  removeEventListener<Name extends keyof SessionEvents>(
    name: Name,
    listener: Listener<Name>,
    options?: EventListenerOptions | boolean,
  ): void;
  removeEventListener(
    name: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: EventListenerOptions | boolean,
  ): void;
}

/**
 * Messages in both directions, each once and in order, over any number of connections.
 *
 * Iterate over it to receive. Messages that are not received stay with the server, once its credit is used
 * up: a browser's WebSocket has no backpressure of its own, so this credit is what bounds the memory.
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the types of events, which are inherited
export class Session extends EventTarget implements AsyncIterable<Incoming> {
  readonly #engine: Engine;

  /** Throws an `UnstallError` with the code `options` if a URL makes no sense. */
  constructor(urls: string | URL | readonly (string | URL)[], options: SessionOptions = {}) {
    super();
    const engine = new Engine(urls, options, (name, detail) => {
      this.dispatchEvent(new CustomEvent(name, { detail }));
    });
    this.#engine = engine;
    onAbort(options.signal, this.closed, (why) => engine.abort("its application ended it", why));
    engine.connector.start();
  }

  /** @internal `connect` gives up when each server was tried once. */
  static async connected(
    urls: string | URL | readonly (string | URL)[],
    options?: SessionOptions,
  ): Promise<Session> {
    const session = new Session(urls, options);
    const engine = session.#engine;
    const servers = Array.isArray(urls) ? urls.length : 1;
    engine.onRefused = (why, times) => {
      if (times >= servers) engine.fail(why);
    };
    await engine.whenOpen.promise;
    return session;
  }

  /**
   * Whether it is a session. If not, it is a plain connection, to a server without sessions: what is lost with
   * a connection is then marked by a gap in the received stream, and never sent again.
   */
  get isSession(): boolean {
    return !this.#engine.plain;
  }

  /** Whether a connection is open now. A session goes on without one for a while. */
  get isConnected(): boolean {
    return this.#engine.connector.isOpen;
  }

  /** Resolves when the server has accepted the session; rejects if it ends before. */
  get opened(): Promise<void> {
    return this.#engine.whenOpen.promise;
  }

  /** Resolves when all is over. It never rejects. */
  get closed(): Promise<Closed> {
    return this.#engine.closed.promise;
  }

  // Sending.

  /**
   * Accepts a message, and waits for room if there is none. What was accepted is delivered, or comes back from
   * {@link takeUndelivered}. Bytes are copied, so they may be changed as soon as this returns a resolved
   * promise.
   *
   * Rejects with an `UnstallError`: `too-large`, `closed`, `session`, or `aborted` by the signal. Then the
   * message was not accepted.
   */
  send(data: Sendable, options?: { signal?: AbortSignal }): Promise<void> {
    return this.#engine.send(messageOf(data), options?.signal);
  }

  /** Accepts a message if there is room now. Throws what {@link send} rejects with. */
  trySend(data: Sendable): boolean {
    return this.#engine.trySend(messageOf(data));
  }

  /**
   * Resolves when the server's application has acknowledged everything that was accepted so far. Rejects if
   * the session is lost before, or if the connection is plain.
   */
  delivered(options?: { signal?: AbortSignal }): Promise<void> {
    return this.#engine.delivered(options?.signal);
  }

  /** The messages of lost sessions that were not acknowledged, in order, each with its fate. Gives them once. */
  takeUndelivered(): Undelivered[] {
    return this.#engine.takeUndelivered();
  }

  // Receiving.

  /**
   * Messages and gaps, until the session is closed. Leaving the loop closes nothing: another loop goes on with
   * the next message. Throws an `UnstallError` if the end is not a close in order.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Incoming, undefined> {
    return new QueueIterator(this.#engine.queue, false);
  }

  /** The same, with a signal that ends the waiting, not the session. */
  messages(options?: { signal?: AbortSignal }): AsyncIterableIterator<Incoming, undefined> {
    return new QueueIterator(this.#engine.queue, false, options?.signal);
  }

  /** The same, all that came together at a time: it is several times as fast for short messages. */
  batches(options?: { signal?: AbortSignal }): AsyncIterableIterator<readonly Incoming[], undefined> {
    return new QueueIterator(this.#engine.queue, true, options?.signal);
  }

  /** The next message or gap; nothing at the end. */
  async receive(options?: { signal?: AbortSignal }): Promise<Incoming | undefined> {
    return (await this.#engine.queue.wait<Incoming>(false, options?.signal)).value;
  }

  /** The next message or gap if one is there now. */
  tryReceive(): Incoming | undefined {
    return this.#engine.queue.take();
  }

  /** Where the message that was received last ends. For {@link acknowledge}. */
  get position(): Position | undefined {
    return this.#engine.queue.position;
  }

  /**
   * The application has processed all messages up to the position; by default all that it has received. Only
   * needed with the option `acknowledge: "by hand"`. A position of a lost session has no effect.
   */
  acknowledge(position: Position | undefined = this.position): void {
    this.#engine.acknowledge(position);
  }

  // The end.

  /**
   * Delivers what was accepted, tells the server, and ends. The application goes on receiving until its loop
   * ends. If it does not receive any more, what it did not take goes back to the server.
   */
  async close(options: CloseOptions = {}): Promise<CloseResult> {
    const { code = 1000, reason = "", within = 5_000 } = options;
    if (code !== 1000 && !(code >= 3000 && code <= 4999)) {
      throw new UnstallError("options", `the close code ${code} is not 1000, and not from 3000 to 4999`);
    }
    const closed = await this.#engine.close(code, reason, within);
    return { ...closed, undelivered: this.takeUndelivered() };
  }

  /** Ends it at once. The server is told if there is a connection. */
  abort(reason = ""): void {
    this.#engine.abort(reason);
  }

  /** How full everything is, and what was counted. */
  stats(): Stats {
    const { connector, core, plain } = this.#engine;
    const { kept, untaken, window, duplicates } = core.stats;
    const waitsFor = !connector.isOpen ? "connection" : core.waitsForCredit ? "credit" : undefined;
    return {
      isConnected: connector.isOpen,
      connections: connector.connections,
      ...core.counters,
      duplicates,
      unacknowledged: plain ? plain.unsent : kept,
      untaken: plain ? this.#engine.queue.cost : untaken,
      window,
      waitsFor,
    };
  }
}

/**
 * Connects, and resolves when the server has accepted a session (or a plain connection is open). If there are
 * several URLs, they are tried in turn. From then on the session connects again by itself.
 *
 * Rejects with an `UnstallError` when each server was tried once. To go on trying, use `new Session`, which
 * can send at once and receives when a server answers.
 */
export function connect(
  urls: string | URL | readonly (string | URL)[],
  options?: SessionOptions,
): Promise<Session> {
  return Session.connected(urls, options);
}
