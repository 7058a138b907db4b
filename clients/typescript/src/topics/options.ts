import type { ConnectionEvents, ConnectionOptions } from "../connection.ts";
import { MIN_WINDOW, WINDOW } from "../core/topics/limits.ts";
import { isFilter } from "../core/topics/name.ts";
import { NO_LOG, placeOf, type Start } from "../core/topics/start.ts";
import { UnstallError } from "../errors.ts";

/** How a client of topics connects and publishes. */
export interface TopicsOptions extends ConnectionOptions {
  /**
   * Proves to the nodes who this is: up to 8,192 visible ASCII characters. A function is called before
   * each attempt to connect. If it gives a JSON Web Token, it is called again before that expires, and the
   * connection goes on. The token travels in the first packet, never in the URL.
   */
  token?: NonNullable<ConnectionOptions["token"]>;
  /**
   * Who publishes: an id of 32 hexadecimal digits, and an epoch that is higher at each start. For
   * applications that keep their own numbers. Default: a random id, so that everything this object
   * publishes is stored once, over all lost connections.
   */
  publisher?: { id: string; epoch: number };
  /**
   * What may be published and have no answer, in bytes: each message costs its payload, its topic, and 64.
   * Publishing waits when it is used up. Default 4 MiB.
   */
  publishWindow?: number;
  /** The largest message that is received, in bytes. A gap takes the place of a larger one. Default 16 MiB. */
  maxMessageBytes?: number;
  /** Closes the client when it is aborted. */
  signal?: AbortSignal;
}

/** Where a subscription begins, and what it asks for. */
export interface SubscribeOptions {
  /** Behind this saved position. Without one, `from` says where. */
  after?: string | null | undefined;
  /**
   * Where to begin without a position:
   * - `"start"`: with the first message that the log has. The default.
   * - `"now"`: with what is published from now on.
   * - `"latest"`: with the latest message of each topic, then live.
   * - `{ last: 10 }`: with the last ten messages of the filter.
   * - `{ since: date }`: with the first message stored then or later. A number is milliseconds since 1970.
   */
  from?: "start" | "now" | "latest" | { last: number } | { since: Date | number };
  /** Delivers a `CaughtUp` when everything up to the end that the log had is delivered. Default `false`. */
  caughtUp?: boolean;
  /**
   * Fresh before complete: if the next message is older than so many milliseconds, the node may go on at
   * the end of the log. A gap tells it. Default: never.
   */
  largestLag?: number;
  /**
   * What may have arrived and wait for the application, in bytes: each message costs its payload, its
   * topic, and 64. The node sends no more before the application has taken some. WebSockets of browsers
   * have no backpressure, so this is the only bound of the page's memory. At least 262,144, default 1 MiB.
   */
  window?: number;
  /** Ends the subscription when it is aborted. */
  signal?: AbortSignal;
}

/** What a {@link Topics} tells to those who listen. */
export interface TopicsEvents extends ConnectionEvents {
  /** A node has welcomed the client. */
  welcomed: { log: string; node: string };
  /** The node asks to connect elsewhere within so many milliseconds. The client does. */
  goaway: { within: number; text: string };
  /** The application's token function failed before the token expired. It is called again. */
  tokenfailed: { why: UnstallError };
}

function wrong(message: string): UnstallError {
  return new UnstallError("options", message);
}

/** The start, checked. */
export function startOf(filter: string, options: SubscribeOptions): Start {
  if (!isFilter(filter))
    throw wrong("a filter is tokens with dots between, as prices.EUR.*, and has at most 255 bytes");
  const { after, from = "start" } = options;
  if (after !== undefined && after !== null) {
    const place = placeOf(after);
    if (!place) throw wrong("after is no position: it looks like LOG:OFFSET:TIME");
    return { name: "after", ...place };
  }
  if (from === "latest") return { name: "latest", log: NO_LOG, end: 0, time: 0, offset: 0 };
  if (from === "now") return { name: "now" };
  if (from === "start") return { name: "beginning" };
  if ("last" in from) {
    const { last: count } = from;
    if (!Number.isInteger(count) || count < 1 || count > 0xffff_ffff)
      throw wrong("last is a whole number from 1 to 4,294,967,295");
    return { name: "last", count };
  }
  const time = Number(from.since);
  if (!Number.isSafeInteger(time) || time < 0)
    throw wrong("since is a Date, or milliseconds since 1970");
  return { name: "since", time };
}

/** The bounds of a subscription, checked. */
export function boundsOf(options: SubscribeOptions): { largestLag: number; window: number } {
  const { largestLag = 0, window = WINDOW } = options;
  if (!(largestLag >= 0)) throw wrong("largestLag is at least 0 milliseconds");
  if (!(window >= MIN_WINDOW && window <= Number.MAX_SAFE_INTEGER / 4))
    throw wrong(`window is at least ${MIN_WINDOW} bytes`);
  return { largestLag: Math.floor(largestLag), window: Math.floor(window) };
}
