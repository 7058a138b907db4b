/**
 * The client of unstall.topics.v1, over any number of connections, without a socket, a clock or
 * randomness.
 *
 * Call {@link TopicsCore.attach} when there is a new connection, {@link TopicsCore.handle} with each
 * packet, {@link TopicsCore.detach} when the connection is lost, and {@link TopicsCore.expire} at the
 * {@link TopicsCore.deadline}. After each call send what {@link TopicsCore.transmit} gives, until it
 * gives nothing, and look at {@link TopicsCore.takeEvents} and at the subscriptions.
 */

import { utf8 } from "../bytes.ts";
import { CODES, type Int, must, ProtocolError } from "./bytes.ts";
import { MIN_LARGEST_MESSAGE } from "./limits.ts";
import { isTopic } from "./name.ts";
import type { OfSubscription, Packet, Rejection, Welcome } from "./packet.ts";
import * as packets from "./packet.ts";
import { type Fate, Publishing } from "./publishing.ts";
import { NO_LOG, type Start } from "./start.ts";
import { CoreSubscription } from "./subscription.ts";

export interface CoreOptions {
  /** 32 hexadecimal digits; all zero: publish without an id. */
  readonly publisher: string;
  readonly epoch: Int;
  readonly largestMessage: number;
}

export type CoreEvent =
  | Fate
  | { readonly type: "welcome"; readonly welcome: Welcome }
  | {
      readonly type: "rejected";
      readonly reason: Rejection;
      readonly retryAfter: number;
      readonly text: string;
    }
  | { readonly type: "goAway"; readonly within: number; readonly text: string }
  | { readonly type: "pong"; readonly after: number }
  | { readonly type: "aborted"; readonly code: number; readonly text: string };

export class TopicsCore {
  state: "off" | "connecting" | "asked" | "open" | "closed" = "off";
  /** The client is done with the connection: close it with this code of WebSocket. */
  closeCode: number | undefined;
  /** Of the node, once it has welcomed the client. */
  welcome: Welcome | undefined;
  readonly publishing: Publishing;
  readonly subscriptions = new Map<number, CoreSubscription>();
  #made = 0;
  #token = "";
  #tokenOwed = false;
  #events: CoreEvent[] = [];
  #largest = MIN_LARGEST_MESSAGE;
  #toUnsubscribe: number[] = [];
  /** Subscriptions that have something new. */
  #readable = new Set<number>();
  #abort: ProtocolError | undefined;
  #pong: Int | undefined;
  #pings = 0;
  #pingOwed = false;
  #pingAt: number | undefined;

  constructor(readonly options: CoreOptions) {
    this.publishing = new Publishing(options.publisher !== NO_LOG);
  }

  /** There is a new connection, with this token. */
  attach(now: number, token = this.#token): void {
    this.detach(now);
    this.#token = token;
    this.state = "connecting";
  }

  /** The connection is lost. */
  detach(now: number): void {
    this.state = "off";
    this.closeCode = this.#abort = this.#pong = this.#pingAt = this.welcome = undefined;
    this.#pingOwed = this.#tokenOwed = false;
    this.#toUnsubscribe = [];
    for (const subscription of this.subscriptions.values()) {
      if (subscription.isOver) subscription.isOverHere = false;
      else subscription.reset();
      if (subscription.isOver) this.#readable.add(subscription.number);
      if (subscription.isOver && subscription.isForgotten)
        this.subscriptions.delete(subscription.number);
    }
    this.#tell(this.publishing.reset());
    this.expire(now);
  }

  /** What happened since the last call. */
  takeEvents(): CoreEvent[] {
    const events = this.#events;
    if (events.length > 0) this.#events = [];
    return events;
  }

  /** The subscriptions that have something new since the last call. */
  takeReadable(): Iterable<number> {
    if (this.#readable.size === 0) return [];
    const readable = this.#readable;
    this.#readable = new Set();
    return readable;
  }

  // The application.

  subscribe(filter: string, start: Start, options: { largestLag: number; window: number }) {
    const number = ++this.#made;
    const { largestMessage } = this.options;
    const subscription = new CoreSubscription(number, { filter, start, ...options, largestMessage });
    this.subscriptions.set(number, subscription);
    return subscription;
  }

  /** Ends a subscription. What is there and not taken is dropped. */
  unsubscribe(subscription: CoreSubscription): void {
    if (subscription.unsubscribe()) this.#toUnsubscribe.push(subscription.number);
  }

  /** Nobody looks at this subscription any more. It is forgotten once the node knows. */
  forget(subscription: CoreSubscription): void {
    this.unsubscribe(subscription);
    if (subscription.isOver) this.subscriptions.delete(subscription.number);
    else subscription.isForgotten = true;
  }

  /** The number of the message, or why it cannot be published. */
  publish(topic: string, data: string | Uint8Array, isFinal: boolean) {
    if (!isTopic(topic)) return "invalid topic";
    const isText = typeof data === "string";
    const payload = isText ? utf8(data) : data;
    if (payload.length > this.#largest) return "too large";
    return this.publishing.add({ topic: utf8(topic), payload, isText, isFinal });
  }

  setToken(token: string): void {
    this.#token = token;
    this.#tokenOwed = this.state === "asked" || this.state === "open";
    if (this.#tokenOwed) this.publishing.changeToken();
  }

  ping(): void {
    this.#pingOwed = true;
  }

  /** Tells the node why the connection ends. */
  abort(why: string): void {
    this.#end(1000, new ProtocolError("APPLICATION", why));
  }

  // Time.

  get deadline(): number | undefined {
    return this.publishing.deadline;
  }

  expire(now: number): void {
    this.#tell(this.publishing.expire(now));
  }

  // Packets.

  /** A packet, or a text message. Gives the error if the node broke the protocol. */
  handle(now: number, data: Uint8Array | string): ProtocolError | undefined {
    if (this.state === "closed" || this.state === "off") return undefined;
    try {
      must(typeof data !== "string");
      const packet = packets.decode(data);
      if (packet) this.#dispatch(now, packet);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      const { code } = error;
      const what = typeof data === "string" ? "a text message" : `a packet of the kind ${data[0]}`;
      const told = new ProtocolError(code, `${what} is ${code}`);
      this.#end(1002, told);
      return told;
    }
    return undefined;
  }

  #end(code: number, abort?: ProtocolError): void {
    this.state = "closed";
    this.closeCode = code;
    this.#abort = abort;
  }

  #dispatch(now: number, packet: Packet): void {
    if (packet.kind === "ABORT") {
      this.#events.push({ type: "aborted", code: packet.code, text: packet.text });
      this.#end(1000);
      return;
    }
    const isAnswer = packet.kind === "WELCOME" || packet.kind === "REJECT";
    must((this.state === "asked") === isAnswer, "UNEXPECTED");
    switch (packet.kind) {
      case "WELCOME":
        this.#handleWelcome(now, packet);
        break;
      case "REJECT":
        this.#events.push({ ...packet, type: "rejected" });
        this.#end(1000);
        break;
      case "PING":
        this.#pong = packet.number;
        break;
      case "PONG":
        this.#handlePong(now, packet.number);
        break;
      case "GOAWAY":
        this.#handleGoAway(packet);
        break;
      case "PUBLISHED":
        this.#tell(this.publishing.handlePublished(packet.first, packet.runs, packet.durability));
        break;
      case "REFUSED":
        this.#tell([this.publishing.handleRefused(packet.number, packet.reason, packet.text)]);
        break;
      default:
        this.#handleSubscription(packet);
    }
  }

  /** There may be very many, so they are not spread into arguments. */
  #tell(fates: Fate[]): void {
    for (const fate of fates) this.#events.push(fate);
  }

  #handleWelcome(now: number, welcome: Welcome): void {
    this.state = "open";
    this.welcome = welcome;
    this.#largest = welcome.largestMessage;
    this.#events.push({ type: "welcome", welcome });
    this.publishing.window = Number(welcome.publishWindow);
    this.publishing.once = welcome.once;
    this.expire(now);
  }

  #handlePong(now: number, number: Int): void {
    if (this.#pingAt === undefined || number !== this.#pings) return;
    this.#events.push({ type: "pong", after: now - this.#pingAt });
    this.#pingAt = undefined;
  }

  #handleGoAway(packet: { window: number; text: string }): void {
    // Only the last one counts, so a node cannot make them many.
    this.#events = this.#events.filter((event) => event.type !== "goAway");
    this.#events.push({ type: "goAway", within: packet.window, text: packet.text });
  }

  #handleSubscription(packet: OfSubscription): void {
    const subscription = this.subscriptions.get(packet.subscription);
    must(subscription !== undefined && !subscription.isOver, "UNEXPECTED");
    subscription.handle(packet, this.welcome?.log ?? "");
    if (packet.kind !== "SUBSCRIBED") this.#readable.add(packet.subscription);
    if (packet.kind !== "ENDED") return;
    this.#toUnsubscribe = this.#toUnsubscribe.filter((number) => number !== packet.subscription);
    if (subscription.isForgotten) this.subscriptions.delete(packet.subscription);
  }

  // What is sent.

  /** The next packet to send, if there is one. */
  transmit(now: number): Uint8Array | undefined {
    if (this.state === "off") return undefined;
    if (this.state === "closed") return this.#farewell();
    if (this.state === "connecting") {
      this.state = "asked";
      return packets.hello({ ...this.options, token: this.#token });
    }
    if (this.#pong !== undefined) {
      const packet = packets.pong(this.#pong);
      this.#pong = undefined;
      return packet;
    }
    if (this.#pingOwed) {
      this.#pingOwed = false;
      this.#pingAt = now;
      return packets.ping(++this.#pings);
    }
    if (this.#tokenOwed) {
      this.#tokenOwed = false;
      return packets.token(this.#token);
    }
    const ended = this.#toUnsubscribe.shift();
    if (ended !== undefined) return packets.unsubscribe(ended);
    for (const subscription of this.subscriptions.values()) {
      const packet = subscription.transmit();
      if (packet) return packet;
    }
    return this.state === "open" ? this.publishing.transmit(now) : undefined;
  }

  #farewell(): Uint8Array | undefined {
    const owed = this.#abort;
    this.#abort = undefined;
    return owed && packets.abort(CODES[owed.code], owed.message);
  }
}
