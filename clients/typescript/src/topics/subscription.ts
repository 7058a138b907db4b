import type { CaughtUp, TopicGap, TopicMessage } from "../core/topics/items.ts";
import { placeText } from "../core/topics/start.ts";
import type { CoreSubscription } from "../core/topics/subscription.ts";
import { printable, UnstallError } from "../errors.ts";
import { type Deferred, deferred, onAbort } from "../soon.ts";
import type { Keeper } from "./keeper.ts";
import type { SubscribeOptions } from "./options.ts";

/** What a subscription delivers, in the order of the log. */
export type Delivery = TopicMessage | TopicGap | CaughtUp;

/** How a subscription stands. */
export interface SubscriptionStats {
  /** Behind what the application has taken last, as text. */
  readonly position: string | undefined;
  /** Messages that the application has taken. */
  readonly messages: number;
  /** What has arrived and waits for the application, in bytes. */
  readonly waitingBytes: number;
  /** What has arrived of a message that is not whole, in bytes. */
  readonly partialBytes: number;
  /** What the node may still send, in bytes. At 0 it waits for the application. */
  readonly creditBytes: number;
  /**
   * How far the application is behind the end of the log, in offsets, as far as the client knows that end. Messages
   * of other topics count as well. Nothing before anything was delivered.
   */
  readonly lag: number | undefined;
}

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };

/**
 * Delivers the messages of a filter, once and in order, over lost connections, restarts and changes of node:
 * `for await (const delivery of subscription)`. It ends behind the final message of its topic.
 *
 * It holds at most its window in memory, and one message. An application that stops taking stalls this
 * subscription alone. Leaving the loop ends the subscription.
 */
export class Subscription implements AsyncIterableIterator<Delivery, undefined> {
  readonly #keeper: Keeper;
  readonly #core: CoreSubscription;
  readonly #marks: boolean;
  /** Those who wait for the next delivery, in order. */
  #waiters: Deferred<IteratorResult<Delivery, undefined>>[] = [];
  #position: string | TopicMessage | undefined;
  /** The offset of that position. */
  #offset: number | undefined;
  #messages = 0;
  #isCaughtUp = false;
  /** A new token is asked for: the subscription goes on with it. */
  #renewing = false;
  #end: { error: UnstallError | undefined } | undefined;
  readonly #over = deferred<void>();

  /** @internal */
  constructor(keeper: Keeper, core: CoreSubscription, options: SubscribeOptions) {
    this.#keeper = keeper;
    this.#core = core;
    this.#marks = options.caughtUp ?? false;
    this.#position = core.place && placeText(core.place);
    keeper.readers.set(core.number, () => this.#look());
    onAbort(options.signal, this.#over.promise, (why) => this.#finish(why));
  }

  /**
   * Behind what was delivered last, as text: `LOG:OFFSET:TIME`. Save it to go on from here with `after`, in
   * another page or process, at any node. Nothing before anything was delivered.
   */
  get position(): string | undefined {
    const position = this.#position;
    return typeof position === "object" ? position.position : position;
  }

  /** How it stands. */
  get stats(): SubscriptionStats {
    const core = this.#core;
    return {
      position: this.position,
      messages: this.#messages,
      waitingBytes: core.queue.cost,
      partialBytes: core.incomplete,
      creditBytes: core.granted - core.received,
      lag: this.#lag,
    };
  }

  get #lag(): number | undefined {
    if (this.#offset === undefined) return undefined;
    const { end, place } = this.#core;
    const known = [this.#keeper.core.welcome?.last, end, place?.offset];
    return Math.max(...known.map((it) => Number(it ?? 0))) - this.#offset;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Waits for the next delivery. Rejects with an `UnstallError` if the subscription is over before its end. */
  next(): Promise<IteratorResult<Delivery, undefined>> {
    if (this.#waiters.length === 0) {
      const value = this.read();
      if (value) return Promise.resolve({ done: false, value });
    }
    const waiter = deferred<IteratorResult<Delivery, undefined>>();
    if (this.#end) this.#settle(waiter, this.#end.error);
    else this.#waiters.push(waiter);
    return waiter.promise;
  }

  /** The next delivery if it is there already; it does not wait. */
  read(): Delivery | undefined {
    while (!this.#end) {
      const item = this.#core.take();
      if (!item) {
        if (this.#keeper.ended) this.#finish(this.#keeper.ended);
        return undefined;
      }
      if (this.#core.isDue) this.#keeper.later();
      if (item.type === "ended") {
        this.#ended(item);
        continue;
      }
      this.#position = item.type === "message" ? item : item.position;
      this.#offset = Number(item.type === "gap" ? item.through : item.offset);
      if (item.type === "message") this.#messages++;
      if (item.type !== "caughtUp") return item;
      const isFirst = !this.#isCaughtUp;
      this.#isCaughtUp = true;
      if (this.#marks && isFirst) return item;
    }
    return undefined;
  }

  /**
   * The same deliveries, in arrays: each has all that are there, at least one. For short messages this is
   * faster. The position is then that behind the whole array. Leaving the loop ends the subscription.
   */
  async *batches(): AsyncGenerator<Delivery[], undefined> {
    try {
      for (let next = await this.next(); !next.done; next = await this.next()) {
        const batch = [next.value];
        for (let it = this.read(); it; it = this.read()) batch.push(it);
        yield batch;
      }
    } finally {
      this.close();
    }
  }

  /** Ends the subscription. What has arrived and was not taken is dropped. */
  return(): Promise<IteratorResult<Delivery, undefined>> {
    this.#finish(undefined);
    return Promise.resolve(DONE);
  }

  /** Ends the subscription: the same as leaving the loop. */
  close(): void {
    this.#finish(undefined);
  }

  #look(): void {
    if (this.#renewing && !this.#keeper.isRenewing) {
      this.#renewing = false;
      this.#core.revive();
    }
    while (this.#waiters.length > 0) {
      const value = this.read();
      if (!value) return;
      this.#waiters.shift()?.resolve({ done: false, value });
    }
    if (this.#keeper.ended && this.#core.queue.length === 0) this.#finish(this.#keeper.ended);
  }

  #ended({ reason, text }: { reason: string; text: string }): void {
    if (reason === "final" || reason === "unsubscribed") this.#finish(undefined);
    else if (reason === "unavailable") this.#goElsewhere();
    else if (reason === "expired" && this.#keeper.renew()) this.#renewing = true;
    else this.#finish(refused(reason, text));
  }

  #goElsewhere(): void {
    // The client may have left that node already.
    const isHere = this.#core.isOverHere;
    this.#core.revive();
    if (isHere) this.#keeper.leave(new UnstallError("lost", "the node cannot read the log", true));
    else this.#keeper.later();
  }

  #finish(error: UnstallError | undefined): void {
    if (this.#end) return;
    this.#end = { error };
    this.#over.resolve();
    this.#keeper.readers.delete(this.#core.number);
    this.#keeper.core.forget(this.#core);
    this.#keeper.later();
    for (const waiter of this.#waiters.splice(0)) this.#settle(waiter, error);
  }

  #settle(waiter: Deferred<IteratorResult<Delivery, undefined>>, error: UnstallError | undefined): void {
    if (error) waiter.reject(error);
    else waiter.resolve(DONE);
  }
}

function refused(reason: string, text: string): UnstallError {
  const words = text && ` (${printable(text)})`;
  const retryable = reason === "too many subscriptions";
  return new UnstallError("rejected", `the node ended the subscription: ${reason}${words}`, retryable);
}
