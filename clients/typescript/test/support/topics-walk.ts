/** Goes through an exchange of topics with the core of the client, and what the server sent. */

import { inflateSync } from "node:zlib";
import { type CoreEvent, TopicsCore } from "../../src/core/topics/client.ts";
import type { Item } from "../../src/core/topics/items.ts";
import { DURABILITIES } from "../../src/core/topics/packet.ts";
import { NO_LOG, type Start } from "../../src/core/topics/start.ts";
import type { CoreSubscription } from "../../src/core/topics/subscription.ts";
import {
  bytesOf,
  type Json,
  packetAsJson,
  payloadAsJson,
  payloadOf,
  unhex,
  withoutWords,
} from "./vectors.ts";

/** A packet that the exchange has with all its bytes. */
export function wholePacket(packet: string | Json): Uint8Array {
  if (typeof packet === "string") return unhex(packet);
  return new Uint8Array(inflateSync(Buffer.from(packet.deflated, "base64")));
}

const summary = (packet: string | Json) => withoutWords(packetAsJson(wholePacket(packet)));

export class Walk {
  now = 0;
  readonly core: TopicsCore;
  readonly subscriptions = new Map<number, CoreSubscription>();
  readonly window: number;

  constructor(client: Json) {
    this.window = client.window ?? 1 << 20;
    this.core = new TopicsCore({
      publisher: client.publisher ?? NO_LOG,
      epoch: client.epoch ?? 0,
      largestMessage: client.largest_message ?? 8 << 20,
    });
    this.core.setToken(client.token ?? "");
  }

  /** What the client does in a step, and what the exchange expects of it. */
  do(step: Json): { got: Json; expected: Json } {
    const before = this.core.closeCode;
    const got: Json = this.#results(step);
    const expected: Json = {};
    if (step.do === "carry" && step.from === "client") expected.packets = step.packets.map(summary);
    const isOfClient = step.from === "server" || step.to === "client" || step.do === "publish";
    if (isOfClient && step.error) expected.error = step.error;
    for (const name of ["number", "subscription", "items"])
      if (step[name] !== undefined) expected[name] = step[name];
    if (step.closed?.client !== undefined) expected.closed = step.closed.client;
    const code = this.core.closeCode;
    if (code !== undefined && code !== before) got.closed = code;
    expected.events = step.events?.client ?? [];
    got.events = this.core.takeEvents().map(eventAsJson);
    return { got, expected };
  }

  #results(step: Json): Json {
    const { core, now } = this;
    switch (step.do) {
      case "connect":
        core.attach(now);
        return {};
      case "cut":
        core.detach(now);
        return {};
      case "wait":
        this.now += step.millis;
        core.expire(this.now);
        return {};
      case "carry":
        return step.from === "client" ? { packets: this.#sent() } : this.#arrived(step);
      case "inject":
        return step.to === "client" ? this.#handled(step.text ?? bytesOf(step)) : {};
      case "subscribe": {
        const largestLag = step.largest_lag ?? 0;
        const options = { largestLag, window: this.window };
        const subscription = core.subscribe(step.filter, startOf(step), options);
        this.subscriptions.set(subscription.number, subscription);
        return { subscription: subscription.number };
      }
      case "unsubscribe":
        core.unsubscribe(this.#of(step));
        return {};
      case "take":
        return { items: taken(this.#of(step)) };
      case "publish": {
        const number = core.publish(step.topic ?? "t", payloadOf(step), step.final ?? false);
        return typeof number === "number" ? { number } : { error: number };
      }
      case "token":
        core.setToken(step.token);
        return {};
      case "ping":
        core.ping();
        return {};
      default:
        return {};
    }
  }

  #of(step: Json): CoreSubscription {
    const subscription = this.subscriptions.get(step.of);
    if (!subscription) throw new Error(`subscription ${step.of} is not there`);
    return subscription;
  }

  #sent(): unknown[] {
    const packets = [];
    for (;;) {
      const packet = this.core.transmit(this.now);
      if (!packet) return packets;
      packets.push(withoutWords(packetAsJson(packet)));
    }
  }

  #arrived(step: Json): Json {
    let results: Json = {};
    step.packets.slice(0, step.arrive).forEach((packet: string | Json) => {
      if (!results.error) results = this.#handled(wholePacket(packet));
    });
    return results;
  }

  #handled(data: Uint8Array | string): Json {
    const error = this.core.handle(this.now, data);
    return error ? { error: error.code } : {};
  }
}

export function startOf(step: Json): Start {
  return step.start ?? { name: "beginning" };
}

export function taken(subscription: CoreSubscription): Json[] {
  const items = [];
  for (let item = subscription.take(); item; item = subscription.take()) items.push(itemAsJson(item));
  return items;
}

function itemAsJson(item: Item): Json {
  switch (item.type) {
    case "message": {
      const { offset, time, topic } = item;
      const final = item.final ? { final: true } : {};
      return { offset, time, topic, ...payloadAsJson(item.data), ...final };
    }
    case "gap": {
      const { reason, certain, after, through } = item;
      return { gap: reason, certain: certain ? 1 : 0, after, through };
    }
    case "caughtUp":
      return { caught_up: item.offset, time: item.time };
    case "ended":
      return { ended: item.reason };
  }
}

function eventAsJson(event: CoreEvent): Json {
  switch (event.type) {
    case "welcome":
      return { welcome: event.welcome.log, name: event.welcome.name };
    case "rejected":
      return { rejected: event.reason, retry_after: event.retryAfter, text: event.text };
    case "published": {
      const durability = DURABILITIES.indexOf(event.durability);
      return { published: event.number, offset: event.offset, durability };
    }
    case "refused": {
      const may = event.mayBeStored ? { may_be_stored: true } : {};
      return { refused: event.number, reason: event.reason, text: event.text, ...may };
    }
    case "unknown":
      return { unknown: event.number };
    case "goAway":
      return { go_away_within: event.within, text: event.text };
    case "pong":
      return { pong_after: event.after };
    case "aborted":
      return { aborted_by_peer: event.code };
  }
}
