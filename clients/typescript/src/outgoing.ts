import { RECORD_OVERHEAD } from "./core/limits.ts";
import type { Undelivered } from "./core/outbox.ts";
import type { Message } from "./core/record.ts";
import { type Deferred, deferred, onAbort } from "./soon.ts";

/** Calls of `send` that wait for room, in order. */
export class Senders {
  #waiting: { message: Message; deferred: Deferred<void> }[] = [];

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  add(message: Message, signal: AbortSignal | undefined): Promise<void> {
    const waiting = { message, deferred: deferred<void>() };
    this.#waiting.push(waiting);
    const { promise, reject } = waiting.deferred;
    onAbort(signal, promise, (why) => {
      this.#waiting = this.#waiting.filter((it) => it !== waiting);
      reject(why);
    });
    return promise;
  }

  /** Offers the messages until one is not accepted. An error is that sender's. */
  serve(accept: (message: Message) => boolean): void {
    while (this.#waiting.length > 0) {
      const { message, deferred } = this.#waiting[0]!;
      try {
        if (!accept(message)) return;
        deferred.resolve();
      } catch (error) {
        deferred.reject(error);
      }
      this.#waiting.shift();
    }
  }

  refuse(error: unknown): void {
    for (const { deferred } of this.#waiting.splice(0)) deferred.reject(error);
  }
}

/** Calls of `delivered` that wait for an acknowledgement, in order. */
export class Watchers {
  readonly #watched: { seq: number; deferred: Deferred<void> }[] = [];

  add(seq: number, signal: AbortSignal | undefined): Promise<void> {
    const watched = { seq, deferred: deferred<void>() };
    this.#watched.push(watched);
    const { promise, reject } = watched.deferred;
    onAbort(signal, promise, reject);
    return promise;
  }

  settle(acknowledged: number): void {
    while (this.#watched.length > 0 && this.#watched[0]!.seq <= acknowledged) {
      this.#watched.shift()!.deferred.resolve();
    }
  }

  refuse(error: unknown): void {
    for (const { deferred } of this.#watched.splice(0)) deferred.reject(error);
  }
}

/** Messages that come back, until the application fetches them. */
export class Returned {
  readonly #limit: number;
  #messages: Undelivered[] = [];
  #cost = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Keeps them. Returns how many of the oldest had to go, because nobody fetched them. */
  add(messages: readonly Undelivered[]): number {
    this.#messages.push(...messages);
    for (const { data } of messages) this.#cost += data.length + RECORD_OVERHEAD;
    let dropped = 0;
    while (this.#cost > this.#limit)
      this.#cost -= this.#messages[dropped++]!.data.length + RECORD_OVERHEAD;
    this.#messages.splice(0, dropped);
    return dropped;
  }

  take(): Undelivered[] {
    this.#cost = 0;
    return this.#messages.splice(0);
  }
}
