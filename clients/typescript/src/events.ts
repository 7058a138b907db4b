import type { ConnectionEvents } from "./connection.ts";
import type { UnstallError } from "./errors.ts";

/** What a session tells to those who listen, beside {@link ConnectionEvents}. */
export interface SessionEvents extends ConnectionEvents {
  /** The server accepted a session; or the connection is plain, because it has none. */
  open: { isSession: boolean };
  /** The session goes on over a new connection. So many records were sent again. */
  resumed: { replayed: number };
  /** The session ended and could not be resumed. So many messages come back. */
  sessionlost: { why: UnstallError; undelivered: number };
  /** So many undelivered messages were dropped, because nobody fetched them. */
  undelivereddropped: { messages: number };
  /** The server asks to connect again, elsewhere or later, within so many milliseconds. */
  goaway: { within: number; reason: string };
  /** The server closes the session. What it sent before can still be received. */
  closing: { code: number; reason: string };
  /** All is over. Without `why` it was closed in order. */
  end: { why: UnstallError | undefined };
}

/** How a session ended. */
export interface Closed {
  /** Both sides have everything that the other one sent. */
  clean: boolean;
  code: number;
  reason: string;
  /** Why it ended, if not by a close in order. */
  error: UnstallError | undefined;
}
