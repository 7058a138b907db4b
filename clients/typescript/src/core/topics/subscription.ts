/** One subscription, over all connections: SPEC-TOPICS.md, sections 7 to 9. */

import { text as textOf } from "../bytes.ts";
import { type Int, must } from "./bytes.ts";
import { CaughtUp, Ended, type Item, Queue, TopicGap, TopicMessage } from "./items.ts";
import { MAX_RECORD, MIN_CREDIT } from "./limits.ts";
import type { Ending, GapReason, OfSubscription } from "./packet.ts";
import * as packets from "./packet.ts";
import { type Piece, readPieces, Topics } from "./records.ts";
import { NO_LOG, type Place, placeText, type Start } from "./start.ts";

export interface SubscriptionOptions {
  readonly filter: string;
  readonly start: Start;
  /** In milliseconds; 0: none. */
  readonly largestLag: number;
  /** What may wait for the application, in bytes. */
  readonly window: number;
  readonly largestMessage: number;
}

/** It has to fit what was said before. */
function mustFit(fits: boolean): asserts fits {
  must(fits, "INCONSISTENT");
}

export class CoreSubscription {
  state: "off" | "asked" | "subscribed" | "unsubscribing" = "off";
  isOver = false;
  /** The connection on which the node ended it is still there. */
  isOverHere = false;
  /** Nobody waits for what it delivers. */
  isForgotten = false;
  readonly queue = new Queue();
  /** Behind everything that has arrived. Nothing before the first SUBSCRIBED. */
  place: Place | undefined;
  /** The end of the log that SUBSCRIBED named. */
  end: Int = 0;
  /** The credit that the node has, and what it has sent, since SUBSCRIBE. */
  granted = 0;
  received = 0;
  /** What the application has taken of this connection, and has not taken of earlier ones. */
  #taken = 0;
  #leftOver = 0;
  /** The records of a message that is not whole, and their cost. */
  #pieces: Piece[] = [];
  incomplete = 0;
  #payload = 0;
  #isCaughtUp = false;
  #isFinal = false;
  /** The end that the log had when the snapshot was made. Nothing before the first SUBSCRIBED. */
  #snapshotEnd: Place | undefined;
  /** The GAP that has to come next, if SUBSCRIBED begins elsewhere than the position. */
  #owesGap: GapReason | undefined;
  /** Where that GAP leads, and the end of the log, until the next packet has told whether one comes. */
  #answer: { readonly begins: Place; readonly end: Place } | undefined;
  readonly #topics: Topics;

  constructor(
    readonly number: number,
    readonly options: SubscriptionOptions,
  ) {
    this.#topics = new Topics(options.filter);
    const { start } = options;
    if (start.name === "after") this.place = start;
    if (start.name === "latest" && start.log !== NO_LOG) {
      const { log, end, time, offset } = start;
      this.place = { log, offset, time: 0 };
      this.#snapshotEnd = { log, offset: end, time };
    }
  }

  /** A connection begins or ends. A message that is not whole is dropped. */
  reset(): void {
    // Section 12: it is over, whether ENDED has arrived or not.
    if (this.#isFinal) this.finish("final");
    else if (this.state === "unsubscribing") this.finish("unsubscribed");
    this.state = "off";
    this.granted = this.received = this.#taken = 0;
    this.#leftOver = this.queue.cost;
    this.#owesGap = this.#answer = undefined;
    this.#drop();
  }

  /** Asks again for a subscription that the node has ended, from its position. */
  revive(): void {
    this.isOver = false;
    this.reset();
  }

  finish(reason: Ending, text = ""): void {
    this.isOver = this.isOverHere = true;
    this.#drop();
    this.queue.push(new Ended(reason, text));
  }

  /** The application wants no more. Whether the node has to be told. */
  unsubscribe(): boolean {
    this.queue.clear();
    if (this.isOver) return false;
    this.#drop();
    if (this.state === "off") {
      this.finish("unsubscribed");
      return false;
    }
    this.state = "unsubscribing";
    return true;
  }

  /** The next item for the application. */
  take(): Item | undefined {
    const item = this.queue.shift();
    if (!item) return undefined;
    // What is left over of earlier connections comes first.
    if (this.#leftOver > 0) this.#leftOver -= this.queue.taken;
    else this.#taken += this.queue.taken;
    return item;
  }

  // Credit: section 8.

  get #target(): number {
    return this.#taken + this.incomplete + this.options.window - this.#leftOver;
  }

  /** Whether {@link transmit} has something to send. */
  get isDue(): boolean {
    if (this.isOver || this.state === "unsubscribing") return false;
    const target = this.#target;
    return this.state === "off"
      ? target >= MIN_CREDIT
      : target - this.granted >= this.options.window / 2;
  }

  transmit(): Uint8Array | undefined {
    if (!this.isDue) return undefined;
    this.granted = this.#target;
    if (this.state !== "off") return packets.credit(this.number, this.granted);
    this.state = "asked";
    const { filter, largestLag } = this.options;
    const start = this.#nextStart();
    const subscription = this.number;
    return packets.subscribe({ subscription, credit: this.granted, largestLag, start, filter });
  }

  get #isSnapshot(): boolean {
    return this.options.start.name === "latest" && !this.#isCaughtUp;
  }

  #nextStart(): Start {
    if (!this.place) return this.options.start;
    if (!this.#isSnapshot) return { name: "after", ...this.place };
    const { log, offset: end, time } = this.#snapshotEnd as Place;
    return { name: "latest", log, end, time, offset: this.place.offset };
  }

  // Packets.

  handle(packet: OfSubscription, log: string): void {
    if (packet.kind === "ENDED") {
      this.finish(packet.reason, packet.text);
      return;
    }
    if (this.state === "unsubscribing") return;
    must((packet.kind === "SUBSCRIBED") === (this.state === "asked"), "UNEXPECTED");
    if (packet.kind === "SUBSCRIBED") {
      this.#handleSubscribed(packet, log);
      return;
    }
    const pieces =
      packet.kind === "MESSAGES" && readPieces(packet.records, this.#topics, this.#pieces.at(-1));
    mustFit(!this.#owesGap || (packet.kind === "GAP" && packet.reason === this.#owesGap));
    const answer = this.#answer;
    this.#answer = undefined;
    if (answer && packet.kind !== "GAP") this.#snapshotEnd = answer.end;
    if (pieces) {
      for (const piece of pieces) this.#handlePiece(piece);
      return;
    }
    // Nothing else may come within a message.
    must(this.#pieces.length === 0, "UNEXPECTED");
    if (packet.kind === "GAP") {
      this.#handleGap(packet, answer?.begins);
      if (answer) this.#snapshotEnd = answer.end;
    } else if (packet.kind === "CAUGHT_UP") this.#handleCaughtUp(packet);
  }

  #handleSubscribed(packet: { after: Int; time: Int; end: Int; endTime: Int }, log: string): void {
    const { after, time, end, endTime } = packet;
    mustFit(after <= end);
    mustFit(!this.#isSnapshot || (after === 0 && time === 0));
    this.state = "subscribed";
    this.end = end;
    const begins = { log, offset: after, time };
    const logEnd = { log, offset: end, time: endTime };
    this.place ??= begins;
    this.#snapshotEnd ??= logEnd;
    if (this.place.log !== log) this.#owesGap = "another log";
    // A snapshot has diverged if the log ends before the end that it had.
    else if (this.#isSnapshot ? this.#snapshotEnd.offset > end : this.place.offset !== after)
      this.#owesGap = "diverged";
    this.#answer = { begins, end: logEnd };
  }

  #handlePiece(piece: Piece): void {
    const place = this.place as Place;
    const isFirst = this.#pieces.length === 0;
    mustFit(!isFirst || piece.offset > place.offset);
    if (isFirst) this.#topics.check(piece.topic);
    this.received += piece.cost;
    must(this.received <= this.granted, "CREDIT_EXCEEDED");
    this.incomplete += piece.cost;
    this.#payload += piece.payload.length;
    must(this.#payload <= this.options.largestMessage, "MESSAGE_TOO_LARGE");
    if (isFirst && !piece.continues) {
      this.#deliver(piece);
      return;
    }
    this.#pieces.push(isFirst || piece.payload.length === MAX_RECORD ? piece : kept(piece));
    if (!piece.continues) this.#deliver(this.#pieces[0] as Piece);
  }

  #deliver(first: Piece): void {
    const { topic, offset, time, isFinal } = first;
    const log = (this.place as Place).log;
    const data = this.#data(first);
    const cost = this.incomplete;
    this.#drop();
    this.place = { log, offset, time };
    this.#isFinal = isFinal && topic === this.options.filter;
    const message = new TopicMessage(log, topic, offset as number, time as number, data, isFinal);
    this.queue.push(message, cost);
  }

  #data(first: Piece): string | Uint8Array {
    let payload = first.payload;
    if (this.#pieces.length > 1) {
      payload = new Uint8Array(this.#payload);
      let at = 0;
      for (const piece of this.#pieces) {
        payload.set(piece.payload, at);
        at += piece.payload.length;
      }
    }
    if (!first.isText) return payload;
    const text = textOf(payload);
    must(text !== undefined, "INVALID_TEXT");
    return text;
  }

  #drop(): void {
    if (this.#pieces.length > 0) this.#pieces = [];
    this.incomplete = this.#payload = 0;
  }

  #handleGap(
    packet: { reason: GapReason; certain: boolean; after: Int; through: Int },
    newPlace: Place | undefined,
  ): void {
    const { reason, certain, after, through } = packet;
    const place = this.place as Place;
    if (reason === "another log" || reason === "diverged") {
      // A diverged log can begin at the same place: its message there is another one.
      mustFit(newPlace !== undefined && (reason === "diverged" || this.#owesGap !== undefined));
      mustFit(after === place.offset && through === newPlace.offset);
      this.place = newPlace;
      this.#owesGap = undefined;
    } else {
      mustFit(place.offset <= after && after <= through);
      if (through !== place.offset) this.place = { log: place.log, offset: through, time: 0 };
    }
    const now = this.place as Place;
    const text = placeText(now);
    const gap = new TopicGap(reason, certain, after as number, through as number, text);
    this.queue.pushGap(gap, now.offset, now.time);
  }

  #handleCaughtUp(packet: { offset: Int; time: Int }): void {
    const { offset } = packet;
    const place = this.place as Place;
    mustFit(offset >= place.offset && offset >= this.end);
    // A node that does not know the time takes nothing away from what is known.
    const time = packet.time || (offset === place.offset ? place.time : 0);
    this.place = { log: place.log, offset, time };
    this.#isCaughtUp = true;
    this.queue.pushCaughtUp(new CaughtUp(offset as number, time as number, placeText(this.place)));
  }
}

/** Short pieces do not keep a whole packet each. */
function kept(piece: Piece): Piece {
  return { ...piece, payload: piece.payload.slice() };
}
