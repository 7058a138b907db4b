/**
 * What went wrong, for programs:
 * - `aborted`: an `AbortSignal` of the application.
 * - `closed`: the application closed this end before.
 * - `connect`: no connection could be made.
 * - `lost`: the connection was lost.
 * - `options`: an option makes no sense. The message says which.
 * - `peer`: the peer broke the protocol.
 * - `plain`: a plain connection cannot do it; only a session can.
 * - `rejected`: the server refused.
 * - `session`: the session ended, and messages may be missing.
 * - `timeout`: it was not done in time.
 * - `token`: the application's `token` function failed.
 * - `too-large`: the message is larger than the peer accepts.
 */
export type ErrorCode =
  | "aborted"
  | "closed"
  | "connect"
  | "lost"
  | "options"
  | "peer"
  | "plain"
  | "rejected"
  | "session"
  | "timeout"
  | "token"
  | "too-large";

/** The one class of errors of this package. `message` says what failed, why, and what to do. */
export class UnstallError extends Error {
  /** For programs. */
  readonly code: ErrorCode;
  /** Whether the same may succeed later, with nothing changed. */
  readonly retryable: boolean;
  /** Of `lost`, if the peer closed the WebSocket: its code. */
  closeCode?: number;

  constructor(code: ErrorCode, message: string, retryable = false, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "UnstallError";
    this.code = code;
    this.retryable = retryable;
  }
}

/** The error of an `AbortSignal`, with the signal's reason as its cause. */
export const aborted = (signal: AbortSignal): UnstallError =>
  new UnstallError("aborted", "the application's signal was aborted", false, signal.reason);

/** A peer's words, short and without control characters, so that they are safe to print. */
export const printable = (words: string): string =>
  words
    .slice(0, 200)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must go
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069]/g, "\ufffd");
