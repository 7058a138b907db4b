export { CaughtUp, TopicGap, TopicMessage } from "./core/topics/items.ts";
export { isFilter, isTopic } from "./core/topics/name.ts";
export type { Durability, GapReason as TopicGapReason, Refusal } from "./core/topics/packet.ts";
export type { SubscribeOptions, TopicsEvents, TopicsOptions } from "./topics/options.ts";
export { type Publication, PublishError, type Stored } from "./topics/publisher.ts";
export { type SavedPosition, savedPosition } from "./topics/saved.ts";
export { type Delivery, Subscription, type SubscriptionStats } from "./topics/subscription.ts";
export { Topics, type TopicsStats } from "./topics.ts";
