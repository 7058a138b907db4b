import type { TopicsCore } from "../core/topics/client.ts";
import { MIN_LARGEST_MESSAGE } from "../core/topics/limits.ts";
import type { Durability, Refusal } from "../core/topics/packet.ts";
import type { Fate } from "../core/topics/publishing.ts";
import { aborted, printable, UnstallError } from "../errors.ts";
import { messageOf, type Sendable } from "../sendable.ts";
import { type Deferred, deferred, onAbort, rejected } from "../soon.ts";

/** A message to publish. */
export interface Publication {
  topic: string;
  /** Text is a string. */
  data: Sendable;
  /** Whether it is the last message of its topic. Subscriptions to exactly this topic end behind it. */
  final?: boolean;
}

/** A message that is stored, and safe. */
export interface Stored {
  /** Its place in the log. Nothing if it was stored before and the place is no longer known. */
  readonly offset: number | undefined;
  /** What safe means here. */
  readonly durability: Durability;
}

/** A message was not published, or nobody knows whether it was. */
export class PublishError extends UnstallError {
  /**
   * Why: the log's refusal; `"not sent"`: the client ended before it was sent; `"no answer"`: it was sent,
   * and its answer never came.
   */
  readonly reason: Refusal | "not sent" | "no answer";
  /** Whether the message may be stored although this is an error. */
  readonly mayBeStored: boolean;

  constructor(reason: PublishError["reason"], mayBeStored: boolean, text = "") {
    const words = text && ` (${printable(text)})`;
    const head = mayBeStored
      ? "nobody knows whether the message is stored"
      : "the message is not stored";
    const code = reason === "no answer" ? "lost" : reason === "not sent" ? "closed" : "rejected";
    super(code, `${head}: ${reason}${words}`, reason === "full" || reason === "unavailable");
    this.name = "PublishError";
    this.reason = reason;
    this.mayBeStored = mayBeStored;
  }
}

/** How often a message that was refused because the token had expired is published again. */
const EXPIRED_AGAIN = 3;

interface Open {
  readonly topic: string;
  readonly data: string | Uint8Array;
  readonly final: boolean;
  readonly answer: Deferred<Stored>;
  expired: number;
}

/** The messages of the application on their way, each with the promise of its answer. */
export class Publisher {
  readonly #core: TopicsCore;
  readonly #window: number;
  /** What has no answer, by the number of the message. */
  readonly #open = new Map<number, Open>();
  /** What waits for room, in order. */
  #line: Open[] = [];
  /** So many at its front are there again. */
  #again = 0;
  /** Nothing leaves the line: the token is being renewed. */
  #held = false;
  /** A node has said how large messages may be. */
  #knowsLimit = false;
  #ended: UnstallError | undefined;
  /** Nobody waits, and everything is answered. */
  #idle: Deferred<void> | undefined;
  stored = 0;
  refused = 0;

  constructor(core: TopicsCore, window: number) {
    this.#core = core;
    this.#window = window;
  }

  get length(): number {
    return this.#open.size + this.#line.length;
  }

  /** Hands a message to the core, or puts it into the line. */
  publish(publication: Publication, signal?: AbortSignal): Promise<Stored> {
    if (this.#ended) return rejected(new PublishError("not sent", false));
    if (signal?.aborted) return rejected(aborted(signal));
    let open: Open;
    try {
      const { topic, final = false } = publication;
      open = { topic, data: dataOf(publication.data), final, answer: deferred(), expired: 0 };
    } catch (error) {
      return rejected(error);
    }
    if (this.#line.length > 0 || !this.#begin(open)) this.#line.push(open);
    onAbort(signal, open.answer.promise, (why) => {
      this.#line = this.#line.filter((it) => it !== open);
      open.answer.reject(why);
      this.#look();
    });
    return open.answer.promise;
  }

  /** Whether it is on its way, or over. */
  #begin(open: Open): boolean {
    const { topic, data, final } = open;
    const { publishing } = this.#core;
    const size = typeof data === "string" ? 3 * data.length : data.length;
    if (!this.#knowsLimit && size > MIN_LARGEST_MESSAGE) return false;
    if (publishing.length > 0 && publishing.cost + data.length > this.#window) return false;
    const number = this.#core.publish(topic, data, final);
    if (typeof number === "number") this.#open.set(number, open);
    else {
      this.refused++;
      open.answer.reject(new PublishError(number, false));
    }
    return true;
  }

  welcomed(): void {
    this.#knowsLimit = true;
    this.#fill();
  }

  /** A new token is asked for, or is there. */
  hold(held: boolean): void {
    this.#held = held;
    this.#fill();
  }

  #fill(): void {
    if (this.#held) return;
    this.#again = 0;
    let begun = 0;
    while (begun < this.#line.length && this.#begin(this.#line[begun]!)) begun++;
    if (begun > 0) this.#line.splice(0, begun);
  }

  /** What became of a message. `again`: the token is renewed. */
  handle(fate: Fate, again: boolean): void {
    const open = this.#open.get(fate.number);
    if (!open) return;
    this.#open.delete(fate.number);
    if (fate.type === "published") {
      this.stored++;
      const offset = fate.offset === 0 ? undefined : (fate.offset as number);
      open.answer.resolve({ offset, durability: fate.durability });
    } else if (fate.type === "unknown") {
      open.answer.reject(new PublishError("no answer", true));
    } else if (again && fate.reason === "expired" && open.expired < EXPIRED_AGAIN) {
      open.expired++;
      this.#line.splice(this.#again++, 0, open);
    } else {
      this.refused++;
      open.answer.reject(new PublishError(fate.reason, fate.mayBeStored, fate.text));
    }
  }

  /** Some were answered: others may have their turn. */
  answered(): void {
    this.#fill();
    this.#look();
  }

  #look(): void {
    if (this.length === 0) this.#idle?.resolve();
  }

  /** Resolves when everything is answered. */
  flushed(): Promise<void> {
    this.#idle ??= deferred();
    this.#look();
    return this.#idle.promise;
  }

  /** The client ends: everybody learns what is known of their message. */
  end(why: UnstallError): void {
    if (this.#ended) return;
    this.#ended = why;
    for (const { number, mayBeStored } of this.#core.publishing.giveUp()) {
      const error = new PublishError(mayBeStored ? "no answer" : "not sent", mayBeStored);
      this.#open.get(number)?.answer.reject(error);
    }
    for (const { answer } of this.#line) answer.reject(new PublishError("not sent", false));
    this.#open.clear();
    this.#line = [];
    this.#idle?.resolve();
  }
}

/** Bytes are copied: the application may write into its own, and they may have to be sent again. */
function dataOf(data: Sendable): string | Uint8Array {
  const message = messageOf(data);
  // A `Buffer` of Node has a `slice` that copies nothing.
  return typeof message === "string" ? message : new Uint8Array(message);
}
