export type { ReconnectOptions } from "./backoff.ts";
export type { ConnectionEvents, ConnectionOptions, WebSocketLike } from "./connection.ts";
export type { Fate, Undelivered } from "./core/outbox.ts";
export type { Message } from "./core/record.ts";
export { CaughtUp, TopicGap, TopicMessage } from "./core/topics/items.ts";
export { isFilter, isTopic } from "./core/topics/name.ts";
export type { Durability, GapReason as TopicGapReason, Refusal } from "./core/topics/packet.ts";
export { type ErrorCode, UnstallError } from "./errors.ts";
export type { Closed, SessionEvents } from "./events.ts";
export { Gap, type GapReason } from "./gap.ts";
export type { SessionOptions } from "./options.ts";
export type { Incoming, Position } from "./queue.ts";
export type { Sendable } from "./sendable.ts";
export {
  type CloseOptions,
  type CloseResult,
  connect,
  Session,
  type Stats,
} from "./session.ts";
export type { SubscribeOptions, TopicsEvents, TopicsOptions } from "./topics/options.ts";
export { type Publication, PublishError, type Stored } from "./topics/publisher.ts";
export { type SavedPosition, savedPosition } from "./topics/saved.ts";
export { type Delivery, Subscription, type SubscriptionStats } from "./topics/subscription.ts";
export { Topics, type TopicsStats } from "./topics.ts";
