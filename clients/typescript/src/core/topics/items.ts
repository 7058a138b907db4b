/** What a subscription delivers, and the queue in which it waits for the application. */

import type { Int } from "./bytes.ts";
import type { Durability, Ending, GapReason } from "./packet.ts";
import { placeText } from "./start.ts";

export type { Durability, Ending, GapReason };

/**
 * A message of a topic.
 *
 * Offsets and times are of the type `number`. Above 2^53 − 1, which a log with a million messages a
 * second reaches after 285 years, they are a `bigint` at run time, so that positions stay exact.
 */
export class TopicMessage {
  readonly type = "message";
  constructor(
    /** The id of the log. */
    readonly log: string,
    readonly topic: string,
    /** The place in the log. It grows with each message. */
    readonly offset: number,
    /** When it was stored, in milliseconds since 1970, by the clock of whoever stored it. */
    readonly time: number,
    /** Text is a string. Bytes are a view of the packet that they came in: `slice()` copies them. */
    readonly data: string | Uint8Array,
    /** Whether it is the last message of its topic. */
    readonly final: boolean,
  ) {}

  /** The place behind this message, as text. Save it to go on from here: `{ after: position }`. */
  get position(): string {
    return placeText(this);
  }
}

/** Messages are or may be missing here. */
export class TopicGap {
  readonly type = "gap";
  constructor(
    readonly reason: GapReason,
    /** Whether messages of the filter are missing for sure. */
    readonly certain: boolean,
    /** What is missing has offsets above this one. */
    readonly after: number,
    /** And up to this one. */
    readonly through: number,
    /** The place behind the gap, as text. */
    readonly position: string,
  ) {}
}

/** Everything up to here is delivered, which was the end of the log when the subscription began. */
export class CaughtUp {
  readonly type = "caughtUp";
  constructor(
    readonly offset: number,
    readonly time: number,
    /** The place, as text. */
    readonly position: string,
  ) {}
}

/** The subscription is over. */
export class Ended {
  readonly type = "ended";
  constructor(
    readonly reason: Ending,
    /** The node's words. They are not to be trusted: do not show them as HTML. */
    readonly text: string,
  ) {}
}

export type Item = TopicMessage | TopicGap | CaughtUp | Ended;

/** The items that the application has not taken, with what they cost. */
export class Queue {
  #items: Item[] = [];
  #costs: number[] = [];
  #head = 0;
  /** What they cost together. */
  cost = 0;
  /** What the item that was taken last did cost. */
  taken = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: Item, cost = 0): void {
    this.#items.push(item);
    this.#costs.push(cost);
    this.cost += cost;
  }

  /** The next item. {@link taken} has its cost. */
  shift(): Item | undefined {
    const item = this.#items[this.#head];
    if (!item) return undefined;
    this.taken = this.#costs[this.#head++] as number;
    this.cost -= this.taken;
    if (this.#head === this.#items.length) this.clear();
    else if (this.#head >= 256 && 2 * this.#head >= this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#costs = this.#costs.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  clear(): void {
    [this.#items, this.#costs, this.#head, this.cost] = [[], [], 0, 0];
  }

  /** Where what came since the last message begins. */
  #tail(): number {
    let at = this.#items.length;
    while (at > this.#head && this.#items[at - 1]?.type !== "message") at--;
    return at;
  }

  /**
   * Keeps one gap for each reason between two messages, where the first one came. What stands
   * behind it holds up to where the gap goes now.
   */
  pushGap(gap: TopicGap, offset: Int, time: Int): void {
    let found = false;
    for (let at = this.#tail(); at < this.#items.length; at++) {
      const known = this.#items[at];
      if (known?.type === "gap" && known.reason === gap.reason) {
        found = true;
        const certain = known.certain || gap.certain;
        this.#items[at] = new TopicGap(gap.reason, certain, known.after, gap.through, gap.position);
      } else if (found && known?.type === "caughtUp") {
        this.#items[at] = new CaughtUp(offset as number, time as number, gap.position);
      } else if (found && known?.type === "gap") {
        const { reason, certain, after, through } = known;
        this.#items[at] = new TopicGap(reason, certain, after, through, gap.position);
      }
    }
    if (!found) this.push(gap);
  }

  /** Keeps the last mark between two messages. */
  pushCaughtUp(mark: CaughtUp): void {
    const tail = this.#tail();
    const known = this.#items.findIndex((item, at) => at >= tail && item.type === "caughtUp");
    if (known >= 0) {
      this.#items.splice(known, 1);
      this.#costs.splice(known, 1);
    }
    this.push(mark);
  }
}
