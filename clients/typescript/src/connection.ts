import { Backoff, type ReconnectOptions } from "./backoff.ts";
import * as defaults from "./defaults.ts";
import { UnstallError } from "./errors.ts";
import { Liveness } from "./liveness.ts";
import { isOffline, watchPage } from "./page.ts";
import { bearerProtocol, checkedUrls, closedError, openError, type Token, tokenOf } from "./upgrade.ts";

/** The part of a WebSocket that is used: a browser's, Node's, Deno's, Bun's, or that of the package `ws`. */
export interface WebSocketLike {
  binaryType: string;
  readonly protocol: string;
  readonly bufferedAmount: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  send(data: never): void;
  close(code?: number, reason?: string): void;
}

/** How connections are made and watched. Times are milliseconds. */
export interface ConnectionOptions {
  /**
   * Proves to the server who this is. A function is called before each attempt, so that a token never is
   * older than its connection. It travels in the list of subprotocols, never in the URL.
   */
  token?: Token | (() => Token | Promise<Token>);
  /** The class of WebSockets. Default: the global one. Node 20 has none: give it that of the package `ws`. */
  WebSocket?: new (
    url: string,
    protocols: string[],
    options?: never,
  ) => WebSocketLike;
  /** When and how often to connect again; `false`: never. */
  reconnect?: ReconnectOptions | false;
  /** For the token and the opening of a connection together. Default 10,000. */
  connectTimeout?: number;
  /** A ping is sent when nothing was received for this long. Default 10,000. */
  pingInterval?: number;
  /** A connection is lost when nothing was received for this long, not even an answer. Default 30,000. */
  silenceTimeout?: number;
}

/** What the loss of a connection means for what it carried. */
export interface Loss {
  /** Whether to connect again. */
  again: boolean;
  /** Whether the connection moved something that had not moved before. */
  progressed: boolean;
}

/** What a {@link Connector} tells to those who listen. */
export interface ConnectionEvents {
  /** A connection is open. */
  connected: { url: string; protocol: string };
  /** A connection was lost. */
  disconnected: { why: UnstallError };
  /** An attempt to connect failed. Attempts count from 1 since the last connection. */
  attemptfailed: { attempt: number; why: UnstallError };
  /** The next attempt begins after this wait, in milliseconds. */
  reconnecting: { attempt: number; after: number };
}

/** A protocol that is carried by one connection after another. Nothing here may throw. */
export interface Carried {
  /** The subprotocols to offer, read before each attempt. */
  readonly protocols: readonly string[];
  /** The largest WebSocket message that makes sense, in bytes. Only the package `ws` can be told. */
  readonly largest?: number;
  /** A connection is open. {@link Connector.protocol} is what the server selected. */
  opened(): void;
  packet(bytes: Uint8Array): void;
  text(text: string): void;
  /** Sends a ping of the protocol, at once. `false` if it has none: then silence means nothing. */
  ping(): boolean;
  lost(why: UnstallError): Loss;
  /** There is no further attempt. Not called after {@link Connector.stop}. */
  gaveUp(why: UnstallError): void;
  /** The buffer of the WebSocket has room again. */
  writable(): void;
  report<Name extends keyof ConnectionEvents>(name: Name, detail: ConnectionEvents[Name]): void;
}

interface Address {
  url: string;
  /** The server asked to be left alone until then. */
  rests: number;
}

const noop = () => {};
const clock = (): number => performance.now();

/** Keeps one connection to one of several servers: dials, watches, dials again. */
export class Connector {
  readonly #carried: Carried;
  readonly #options: ConnectionOptions;
  readonly #addresses: Address[];
  readonly #backoff: Backoff;
  readonly #unwatch: () => void;
  #at = -1;
  #socket: WebSocketLike | undefined;
  #open = false;
  #stopped = false;
  #suspended = false;
  /** Failed attempts since the last connection. */
  #failures = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #attempt: AbortController | undefined;
  #live: Liveness | undefined;
  #openedAt = 0;
  #received = false;
  #buffer = defaults.BUFFER_FIRST;
  #looking: ReturnType<typeof setTimeout> | undefined;
  #leaving: ReturnType<typeof setTimeout> | undefined;
  /** How many connections were opened. */
  connections = 0;

  /** Throws an `UnstallError` with the code `options` if a URL or an option makes no sense. */
  constructor(
    urls: string | URL | readonly (string | URL)[],
    carried: Carried,
    options: ConnectionOptions = {},
  ) {
    this.#addresses = checkedUrls(urls).map((url) => ({ url, rests: 0 }));
    this.#carried = carried;
    this.#options = options;
    this.#backoff = new Backoff(options.reconnect || undefined);
    this.#unwatch = watchPage({
      check: () => this.#check(),
      online: () => this.#online(),
      suspend: () => this.#suspend(),
      resume: () => this.#wake(),
    });
  }

  /** Makes the first attempt. */
  start(): void {
    void this.#dial();
  }

  /** Whether a connection is open. */
  get isOpen(): boolean {
    return this.#open;
  }

  /** The subprotocol that the server selected; empty if it selected none. */
  get protocol(): string {
    return this.#socket?.protocol ?? "";
  }

  get url(): string {
    return this.#addresses[this.#at]?.url ?? this.#addresses[0]!.url;
  }

  /**
   * Whether {@link send} may be called now. If not, {@link Carried.writable} is called later. Urgent packets,
   * such as pings, do not ask.
   */
  hasRoom(): boolean {
    if (!this.#open) return false;
    if (this.#socket!.bufferedAmount < this.#buffer) return true;
    this.#looking ??= setTimeout(() => this.#look(), defaults.BUFFER_LOOK);
    return false;
  }

  /** What drained in between says how much may wait: see `BUFFER_LEAST`. */
  #look(): void {
    this.#looking = undefined;
    if (!this.#open) return;
    const left = this.#socket!.bufferedAmount;
    if (left === 0) this.#buffer = Math.min(2 * this.#buffer, defaults.BUFFER_MOST);
    else if (left > this.#buffer / 2) this.#buffer = Math.max(this.#buffer / 2, defaults.BUFFER_LEAST);
    if (this.hasRoom()) this.#carried.writable();
  }

  /** Sends one binary message on the open connection. */
  send(bytes: Uint8Array): void {
    // A socket that is closing drops it, and says so with its `close` event.
    if (this.#open) this.#socket!.send(bytes as never);
  }

  /** Sends one text message on the open connection. */
  sendText(text: string): void {
    if (this.#open) this.#socket!.send(text as never);
  }

  /** Closes the present connection, which is then lost for the given reason. */
  drop(why: UnstallError, code = 1000): void {
    if (this.#open) this.#lost(why, code);
  }

  /** Ends it: no connection, and no further attempt. Nothing is called any more. */
  stop(code = 1000): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#unwatch();
    this.#release(code);
  }

  /** The next attempt is at the present address again. */
  again(): void {
    this.#at -= 1;
  }

  /** The server at the present address asks to be left alone for so many milliseconds. */
  rest(wait: number): void {
    const address = this.#addresses[this.#at];
    if (address) address.rests = clock() + Math.min(wait, defaults.RETRY_AFTER_MAX);
  }

  /** Leaves the present server within so many milliseconds, at a random moment. */
  leave(within: number, why: UnstallError): void {
    const wait = Math.min(within, defaults.RETRY_AFTER_MAX) * Math.random();
    clearTimeout(this.#leaving);
    this.#leaving = setTimeout(() => this.drop(why), wait);
  }

  /**
   * Stops reading until {@link resume}, if the WebSocket can: that of the package `ws` can, those of browsers
   * cannot. Silence means nothing meanwhile.
   */
  pause(): boolean {
    const socket = this.#socket as { pause?: () => void } | undefined;
    if (!this.#open || !socket?.pause) return false;
    socket.pause();
    return true;
  }

  resume(): void {
    if (this.#open) (this.#socket as { resume?: () => void }).resume?.();
  }

  // Dialing.

  /** The next address that may be asked now, else the one that may be asked first; and the wait until then. */
  #next(): { index: number; rests: number } {
    const now = clock();
    const count = this.#addresses.length;
    let best = { index: 0, rests: Number.POSITIVE_INFINITY };
    for (let step = 1; step <= count; step++) {
      const index = (this.#at + step + count) % count;
      const rests = Math.max(this.#addresses[index]!.rests - now, 0);
      if (rests < best.rests) best = { index, rests };
    }
    return best;
  }

  async #dial(): Promise<void> {
    if (this.#stopped || this.#suspended || this.#socket || this.#attempt) return;
    this.#at = this.#next().index;
    clearTimeout(this.#timer);
    const attempt = new AbortController();
    this.#attempt = attempt;
    const within = this.#options.connectTimeout ?? defaults.CONNECT_TIMEOUT;
    const late = () =>
      this.#failed(
        new UnstallError("connect", `no connection to ${this.#shown()} within ${within} ms`, true),
      );
    this.#timer = setTimeout(late, within);
    try {
      const token = await tokenOf(this.#options.token);
      if (attempt.signal.aborted) return;
      const protocols = [...this.#carried.protocols];
      if (token !== undefined) protocols.push(bearerProtocol(token));
      this.#opening(this.url, protocols);
    } catch (error) {
      if (attempt.signal.aborted) return;
      this.#failed(error as UnstallError);
    }
  }

  #opening(url: string, protocols: string[]): void {
    const Socket =
      this.#options.WebSocket ?? (globalThis.WebSocket as unknown as ConnectionOptions["WebSocket"]);
    if (!Socket) {
      throw new UnstallError(
        "options",
        "there is no global WebSocket here: give the option WebSocket one, as of the package ws",
      );
    }
    let socket: WebSocketLike;
    try {
      // Browsers take no options. Tokens must not be compressed, and one message must not fill the memory.
      const options = {
        maxPayload: this.#carried.largest ?? defaults.LARGEST,
        perMessageDeflate: false,
      };
      socket = new Socket(url, protocols, options as never);
    } catch (cause) {
      throw new UnstallError(
        "connect",
        `no WebSocket to ${this.#shown()}: ${(cause as Error).message}`,
        false,
        cause,
      );
    }
    this.#socket = socket;
    // The package `ws` copies each message for an ArrayBuffer.
    socket.binaryType = "on" in socket ? "nodebuffer" : "arraybuffer";
    let why: unknown;
    const handlers = {
      onopen: () => this.#opened(),
      onmessage: (event: { data: unknown }) => this.#message(event.data),
      onerror: (event: { error?: unknown }) => {
        why = event.error;
      },
      onclose: (event: { code: number; reason: string }) =>
        this.#open ? this.#lost(closedError(event, why)) : this.#failed(openError(this.#shown(), why)),
    };
    Object.assign(socket, handlers);
  }

  #opened(): void {
    clearTimeout(this.#timer);
    this.#attempt = undefined;
    this.#open = true;
    this.#failures = 0;
    this.#received = false;
    this.#buffer = defaults.BUFFER_FIRST;
    this.connections += 1;
    const now = clock();
    this.#openedAt = now;
    const { pingInterval = defaults.PING_INTERVAL, silenceTimeout = defaults.SILENCE_TIMEOUT } =
      this.#options;
    this.#live = new Liveness(pingInterval, silenceTimeout, now);
    this.#watch();
    this.#carried.report("connected", { url: this.#shown(), protocol: this.protocol });
    if (this.#open) this.#carried.opened();
  }

  /** An attempt failed. The next one follows after a wait, if there is to be one. */
  #failed(why: UnstallError): void {
    this.#release(1000);
    this.#failures += 1;
    this.#carried.report("attemptfailed", { attempt: this.#failures, why });
    if (this.#stopped) return;
    const again =
      why.retryable && this.#options.reconnect !== false && this.#backoff.allows(this.#failures);
    if (again) this.#redial();
    else this.#giveUp(why);
  }

  #giveUp(why: UnstallError): void {
    this.stop();
    this.#carried.gaveUp(why);
  }

  #redial(): void {
    if (this.#suspended) return;
    const after = this.#backoff.next() + this.#next().rests;
    this.#carried.report("reconnecting", { attempt: this.#failures + 1, after });
    if (this.#stopped || this.#attempt || this.#socket) return;
    clearTimeout(this.#timer);
    // Without a network an attempt is vain. The browser says when it is back; it may be wrong, too.
    const wait = isOffline() ? Math.max(after, defaults.RECONNECT_MAX) : after;
    this.#timer = setTimeout(() => void this.#dial(), wait);
  }

  // The open connection.

  #message(data: unknown): void {
    this.#received = true;
    if (this.#live!.heard(clock())) this.#watch();
    if (typeof data === "string") this.#carried.text(data);
    else if (data instanceof ArrayBuffer) this.#carried.packet(new Uint8Array(data));
    else {
      const { buffer, byteOffset, length } = data as Uint8Array;
      this.#carried.packet(new Uint8Array(buffer, byteOffset, length));
    }
  }

  #watch(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tick(), Math.max(this.#live!.due - clock(), 0));
  }

  #tick(): void {
    const verdict = this.#live!.tick(clock());
    if (verdict === "lost") {
      this.#silent();
      return;
    }
    if (verdict === "ping") this.#ping();
    if (this.#open) this.#watch();
  }

  #ping(): void {
    if (!this.#carried.ping()) this.#live?.heard(clock());
  }

  #silent(): void {
    const { silenceTimeout = defaults.SILENCE_TIMEOUT } = this.#options;
    const socket = this.#socket as { terminate?: () => void };
    const words = `nothing was received for up to ${silenceTimeout} ms: the peer or the network has failed`;
    this.#lost(new UnstallError("lost", words, true));
    // The package `ws` would wait half a minute for a closing handshake, and keep the process alive.
    socket.terminate?.();
  }

  #check(): void {
    if (!this.#open) return;
    this.#live!.check(clock());
    this.#ping();
    if (this.#open) this.#watch();
  }

  #online(): void {
    this.#check();
    // Also for a connection that is open, and for an attempt that is under way: both may be of the network that
    // was. When they fail, the next attempt comes soon.
    this.#backoff.reset();
    if (this.#socket || this.#stopped || this.#suspended || this.#attempt) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#dial(), this.#backoff.next());
  }

  #suspend(): void {
    this.#suspended = true;
    if (this.#open)
      this.#lost(new UnstallError("lost", "the page went into the back-forward cache", true));
    else this.#release(1000);
  }

  #wake(): void {
    this.#suspended = false;
    this.#backoff.reset();
    void this.#dial();
  }

  #lost(why: UnstallError, code = 1000): void {
    const lasted = clock() - this.#openedAt;
    this.#release(code);
    this.#carried.report("disconnected", { why });
    const { again, progressed } = this.#carried.lost(why);
    this.#backoff.lived(lasted, this.#received, progressed);
    if (this.#stopped) return;
    if (again && this.#options.reconnect !== false) this.#redial();
    else this.#giveUp(why);
  }

  /** Lets go of the socket and of every timer. */
  #release(code: number): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#looking);
    clearTimeout(this.#leaving);
    this.#looking = undefined;
    this.#attempt?.abort();
    this.#attempt = undefined;
    this.#open = false;
    this.#live = undefined;
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = undefined;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // The package `ws` throws an error that nobody listens for.
    socket.onerror = noop;
    try {
      socket.close(code);
    } catch {
      socket.close();
    }
  }

  #shown(): string {
    return this.url.replace(/[?#].*/, "");
  }
}
