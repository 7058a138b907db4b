/** What the application publishes: SPEC-TOPICS.md, section 10. */

import { add, type Int, must, packet } from "./bytes.ts";
import { FILL } from "./limits.ts";
import type { Durability, Refusal } from "./packet.ts";
import { costOf, type Outgoing, recordSize, recordsOf, writeRecord } from "./records.ts";

/** What became of a published message, by its number. */
export type Fate =
  | {
      readonly type: "published";
      readonly number: number;
      /** 0: the message was stored before, and its offset is not known. */
      readonly offset: Int;
      readonly durability: Durability;
    }
  | {
      readonly type: "refused";
      readonly number: number;
      readonly reason: Refusal;
      readonly text: string;
      readonly mayBeStored: boolean;
    }
  /** It was sent and will not be sent again: nobody knows. */
  | { readonly type: "unknown"; readonly number: number };

interface Open {
  readonly number: number;
  readonly message: Outgoing;
  readonly cost: number;
  readonly records: number;
  /** Records that were sent on this connection. */
  sent: number;
  /** When its last record was sent first. */
  since: number | undefined;
  /** It was sent to its end on an earlier connection. */
  again: boolean;
}

const PUBLISH = 0x30;

export class Publishing {
  /** Of the log, once WELCOME has come. */
  window = 0;
  once = 0;
  #last = 0;
  /** Messages without an answer, the oldest first. */
  #open: Open[] = [];
  /** The cost of all of them, and of those that were begun on this connection. */
  cost = 0;
  #onWay = 0;
  /** So many of them were begun on this connection; the last one perhaps not to its end. */
  #begun = 0;
  #hasBegun = false;
  /** No message is begun while one up to this number has no answer. */
  #barrier = 0;
  /** So many at the front are answered, and removed once a packet is handled. */
  #head = 0;

  constructor(readonly hasId: boolean) {}

  get length(): number {
    return this.#open.length;
  }

  add(message: Outgoing): number {
    const cost = costOf(message);
    const records = recordsOf(message);
    const number = ++this.#last;
    this.#open.push({ number, message, cost, records, sent: 0, since: undefined, again: false });
    this.cost += cost;
    return number;
  }

  /** A connection begins or ends. Gives what is unknown now. */
  reset(): Fate[] {
    this.#begun = this.#onWay = this.#barrier = 0;
    this.#hasBegun = false;
    const lost = this.hasId ? [] : this.#give((it) => it.sent === it.records);
    for (const it of this.#open) {
      it.sent = 0;
      it.again = it.since !== undefined;
    }
    return lost;
  }

  /** Gives the messages that wait and must not be sent again. */
  expire(now: number): Fate[] {
    // A connection that has sent PUBLISH cannot leave a number out.
    if (this.#hasBegun || !this.once) return [];
    return this.#give((it) => it.since !== undefined && now - it.since > this.once);
  }

  /** When {@link expire} has something to give, if nothing else happens. */
  get deadline(): number | undefined {
    if (this.#hasBegun || !this.once) return undefined;
    const since = this.#open.find((it) => it.since !== undefined)?.since;
    return since === undefined ? undefined : since + this.once + 1;
  }

  /** The client ends. What was sent to its end may be stored. */
  giveUp(): { readonly number: number; readonly mayBeStored: boolean }[] {
    const all = this.#open;
    this.#open = [];
    this.cost = this.#begun = this.#onWay = 0;
    return all.map((it) => ({ number: it.number, mayBeStored: it.since !== undefined }));
  }

  #give(isLost: (open: Open) => boolean): Fate[] {
    const lost = this.#open.filter(isLost);
    if (lost.length === 0) return [];
    this.#open = this.#open.filter((it) => !isLost(it));
    this.cost = this.#open.reduce((sum, it) => sum + it.cost, 0);
    return lost.map(({ number }) => ({ type: "unknown", number }));
  }

  /** Another token may allow what is refused now, so what was sent is answered first. */
  changeToken(): void {
    this.#barrier = this.#open[this.#begun - 1]?.number ?? 0;
  }

  /** The message that the next record is of. */
  #next(): Open | undefined {
    const last = this.#open[this.#begun - 1];
    if (last && last.sent < last.records) return last;
    const next = this.#open[this.#begun];
    const isHeld = (this.#open[0]?.number ?? 0) <= this.#barrier;
    if (!next || isHeld || (this.#onWay > 0 && this.#onWay + next.cost > this.window)) return undefined;
    return next;
  }

  get isDue(): boolean {
    return this.#next() !== undefined;
  }

  transmit(now: number): Uint8Array | undefined {
    let next = this.#next();
    if (!next) return undefined;
    const writer = packet(PUBLISH, FILL + 64).u64(next.number);
    for (let count = 0; next; next = this.#next(), count++) {
      if (count > 0 && writer.length + recordSize(next.message, next.sent) > FILL) break;
      if (next.sent === 0) {
        this.#begun++;
        this.#onWay += next.cost;
      }
      writeRecord(writer, next.message, next.sent++);
      if (next.sent === next.records) next.since ??= now;
    }
    this.#hasBegun = true;
    return writer.done();
  }

  handlePublished(first: Int, runs: readonly (readonly [Int, Int])[], durability: Durability) {
    this.#check(
      first,
      runs.reduce<Int>((sum, [count]) => add(sum, count), 0),
    );
    const fates: Fate[] = [];
    for (const [count, offset] of runs) {
      for (let at = 0; at < count; at++) {
        const { number } = this.#answered();
        const stored = offset === 0 ? 0 : add(offset, at);
        fates.push({ type: "published", number, offset: stored, durability });
      }
    }
    this.#trim();
    return fates;
  }

  handleRefused(number: Int, reason: Refusal, text: string): Fate {
    this.#check(number, 1);
    const { again } = this.#answered();
    this.#trim();
    // What an earlier connection brought may be stored.
    const mayBeStored = reason === "unknown" || (again && reason !== "invalid topic");
    return { type: "refused", number: Number(number), reason, text, mayBeStored };
  }

  /** Answers are to the oldest messages, and to such as were sent to their end. */
  #check(number: Int, count: Int): void {
    const last = this.#open[Number(count) - 1];
    const fits = this.#open[0]?.number === number && last && count <= this.#begun;
    must(Boolean(fits && last.sent === last.records), "INCONSISTENT");
  }

  #answered(): Open {
    const it = this.#open[this.#head++] as Open;
    this.cost -= it.cost;
    this.#onWay -= it.cost;
    this.#begun--;
    return it;
  }

  #trim(): void {
    this.#open.splice(0, this.#head);
    this.#head = 0;
  }
}
