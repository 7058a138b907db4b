import type { ConnectionOptions } from "./connection.ts";
import type { Config } from "./core/limits.ts";
import { ACKNOWLEDGE_COST } from "./defaults.ts";

/** How a session is made and what it may hold. Sizes are bytes, times milliseconds. */
export interface SessionOptions extends ConnectionOptions {
  /** Ends the session at once when it is aborted: nothing more is sent or received. */
  signal?: AbortSignal;
  /**
   * - `"required"` (default): a server without sessions is an error.
   * - `"offered"`: a session, and a plain connection with a server that has none. Then
   *   {@link Session.isSession} is `false`, and what is lost with a connection stays lost. Browsers do not say
   *   why a connection does not open, so each failed attempt is followed by a plain one.
   * - `"never"`: a plain connection. A token needs one of the `protocols` then, which the server selects.
   */
  session?: "offered" | "required" | "never";
  /** More subprotocols to offer, for plain connections. */
  protocols?: readonly string[];
  /**
   * Whether another session follows one that is lost. The received stream has a {@link Gap} between them, and
   * {@link Session.takeUndelivered} gives back what the lost one did not deliver. Default `true`.
   */
  freshSession?: boolean;
  /**
   * When a received message counts as acknowledged: when the application has `"taken"` it (default), or when
   * it says so by {@link Session.acknowledge} (`"by hand"`). The server keeps a message until then.
   */
  acknowledge?: "taken" | "by hand";
  /**
   * How much the server may send ahead of the application, at first. This bounds the memory for received
   * messages. Default 1 MiB, from 256 KiB to 1 GiB.
   */
  window?: number;
  /** Up to which the window grows while it limits the stream. Default 8 MiB. */
  largestWindow?: number;
  /** The largest message that is accepted. Default 8 MiB, at most 1 GiB. */
  largestMessage?: number;
  /**
   * How much is kept until the server has acknowledged it. Beyond it, `send` waits. Default 16 MiB, at least
   * the largest message and 128 KiB.
   */
  replay?: number;
  /** How long the session may be without a connection; the server's own limit counts too. Default 120,000. */
  sessionLife?: number;
}

export function coreConfig(options: SessionOptions): Partial<Config> {
  const { window, largestWindow, largestMessage, replay, sessionLife, acknowledge } = options;
  const config = {
    window,
    largestWindow,
    largestMessage,
    replay,
    expiry: sessionLife,
    acknowledgeByHand: acknowledge === "by hand",
    acknowledgeCost: ACKNOWLEDGE_COST,
  };
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
}
