export type { ReconnectOptions } from "./backoff.ts";
export type { ConnectionEvents, ConnectionOptions, WebSocketLike } from "./connection.ts";
export type { Fate, Undelivered } from "./core/outbox.ts";
export type { Message } from "./core/record.ts";
export type { Closed, SessionEvents } from "./engine.ts";
export { type ErrorCode, UnstallError } from "./errors.ts";
export { Gap, type GapReason } from "./gap.ts";
export type { SessionOptions } from "./options.ts";
export type { Incoming, Position } from "./queue.ts";
export {
  type CloseOptions,
  type CloseResult,
  connect,
  type Sendable,
  Session,
  type Stats,
} from "./session.ts";
