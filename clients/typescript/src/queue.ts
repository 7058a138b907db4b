import type { Batch, Position as CorePosition } from "./core/inbox.ts";
import { MIN_WINDOW, RECORD_OVERHEAD } from "./core/limits.ts";
import type { Message } from "./core/record.ts";
import { aborted } from "./errors.ts";
import { Gap } from "./gap.ts";
import { type Deferred, deferred, onAbort, rejected } from "./soon.ts";

/** What is received: text, bytes, or the place where something is missing. */
export type Incoming = Message | Gap;

/** Where a received message ends. Only {@link Session.acknowledge} has a use for it. */
export interface Position extends CorePosition {
  /** The session's number, from 1: another one may follow when a session is lost. */
  readonly session: number;
}

interface Entry {
  items: readonly Incoming[];
  /** Of a session: its number, and where the items end. */
  session: number;
  batch: Batch | undefined;
  cost: number;
}

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };
const NOTHING: readonly Incoming[] = [];

/** A reader that waits: it takes one item, or all that are there. */
interface Waiter {
  all: boolean;
  deferred: Deferred<IteratorResult<never, undefined>>;
}

/** What was received and not handed over yet, and who waits for it. */
export class Queue {
  #entries: Entry[] = [];
  /** The entry that is being handed over, and how much of it was. */
  #items = NOTHING;
  #index = 0;
  #entry: Entry | undefined;
  /** The cost of what waits. */
  cost = 0;
  #waiters: Waiter[] = [];
  #end: { error: unknown } | undefined;
  /** Iterators that have not been left. */
  readers = 0;
  /** The application has taken something: called when an entry has begun, and when all of it is taken. */
  readonly #taking: (all: boolean) => void;

  constructor(taking: (all: boolean) => void) {
    this.#taking = taking;
  }

  get isEmpty(): boolean {
    return this.#index >= this.#items.length && this.#entries.length === 0;
  }

  /** Whether the application reads, or may be about to. */
  get isRead(): boolean {
    return this.readers > 0 || this.#waiters.length > 0;
  }

  pushBatch(session: number, batch: Batch, cost: number): void {
    this.#push({ items: batch.messages, session, batch, cost });
  }

  /** A message of a plain connection, or a gap. Those that come while some wait are handed over together. */
  pushOne(item: Incoming, cost = RECORD_OVERHEAD): void {
    const last = this.#entries.at(-1);
    if (last && !last.batch) {
      (last.items as Incoming[]).push(item);
      last.cost += cost;
      this.cost += cost;
      return;
    }
    this.#push({ items: [item], session: 0, batch: undefined, cost });
  }

  #push(entry: Entry): void {
    this.#entries.push(entry);
    this.cost += entry.cost;
    this.#serve();
  }

  /** Nothing follows. Without an error it is a normal end. */
  end(error?: unknown): void {
    this.#end ??= { error };
    this.#serve();
  }

  #serve(): void {
    while (this.#waiters.length > 0) {
      const waiter = this.#waiters[0]!;
      const value = waiter.all ? this.takeAll() : this.take();
      if (value !== undefined) {
        this.#waiters.shift();
        waiter.deferred.resolve({ done: false, value: value as never });
      } else if (this.#end) {
        this.#waiters.shift();
        if (this.#end.error === undefined) waiter.deferred.resolve(DONE);
        else waiter.deferred.reject(this.#end.error);
      } else return;
    }
  }

  #begin(): boolean {
    const entry = this.#entries.shift();
    if (!entry) return false;
    this.#entry = entry;
    this.#items = entry.items;
    this.#index = 0;
    this.cost -= entry.cost;
    return true;
  }

  /** The next item, if one is there. */
  take(): Incoming | undefined {
    if (this.#index >= this.#items.length && !this.#begin()) return undefined;
    const item = this.#items[this.#index++]!;
    if (this.#index === this.#items.length) this.#taking(true);
    else if (this.#index === 1) this.#taking(false);
    return item;
  }

  /** All items of the next entry, or what is left of it. */
  takeAll(): readonly Incoming[] | undefined {
    if (this.#index >= this.#items.length && !this.#begin()) return undefined;
    const items = this.#index > 0 ? this.#items.slice(this.#index) : this.#items;
    this.#index = this.#items.length;
    this.#taking(true);
    return items;
  }

  /** Where the last item that was handed over ends, if a session brought it. */
  get position(): Position | undefined {
    const entry = this.#entry;
    if (!entry?.batch || this.#index === 0) return undefined;
    return { session: entry.session, ...entry.batch.after(this.#index) };
  }

  /** The next item or items, when they are there. */
  wait<Value>(all: boolean, signal?: AbortSignal): Promise<IteratorResult<Value, undefined>> {
    if (signal?.aborted) return rejected(aborted(signal));
    if (this.#waiters.length === 0) {
      const value = all ? this.takeAll() : this.take();
      if (value !== undefined) return Promise.resolve({ done: false, value: value as Value });
      if (this.#end) {
        return this.#end.error === undefined ? Promise.resolve(DONE) : rejected(this.#end.error);
      }
    }
    const waiter: Waiter = { all, deferred: deferred() };
    this.#waiters.push(waiter);
    const { promise, reject } = waiter.deferred;
    onAbort(signal, promise, (why) => {
      this.#waiters = this.#waiters.filter((it) => it !== waiter);
      reject(why);
    });
    return promise;
  }

  /** A reader has gone. */
  left(): void {
    this.readers -= 1;
    this.#taking(true);
  }

  /** Bounds what lost sessions leave behind. What is dropped was not acknowledged, so the peer has it back. */
  bound(limit: number): void {
    let messages = 0;
    while (this.cost > Math.max(limit, MIN_WINDOW) && this.#entries.length > 0) {
      const entry = this.#entries.pop()!;
      this.cost -= entry.cost;
      for (const item of entry.items) messages += item instanceof Gap ? (item.messages ?? 0) : 1;
    }
    if (messages > 0) this.pushOne(new Gap("dropped", undefined, messages));
  }
}

/** Iterates over what a queue hands over. Leaving the loop ends the iterator and nothing else. */
export class QueueIterator<Value> implements AsyncIterableIterator<Value, undefined> {
  readonly #queue: Queue;
  readonly #all: boolean;
  readonly #signal: AbortSignal | undefined;
  #left = false;

  constructor(queue: Queue, all: boolean, signal?: AbortSignal) {
    this.#queue = queue;
    this.#all = all;
    this.#signal = signal;
    queue.readers += 1;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Value, undefined>> {
    if (this.#left) return Promise.resolve(DONE);
    return this.#queue.wait<Value>(this.#all, this.#signal);
  }

  return(): Promise<IteratorResult<Value, undefined>> {
    if (!this.#left) this.#queue.left();
    this.#left = true;
    return Promise.resolve(DONE);
  }
}
