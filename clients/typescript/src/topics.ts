import type { CoreSubscription } from "./core/topics/subscription.ts";
import { printable, UnstallError } from "./errors.ts";
import type { Sendable } from "./sendable.ts";
import { onAbort } from "./soon.ts";
import { Keeper } from "./topics/keeper.ts";
import {
  boundsOf,
  type SubscribeOptions,
  startOf,
  type TopicsEvents,
  type TopicsOptions,
} from "./topics/options.ts";
import { type Publication, PublishError, type Stored } from "./topics/publisher.ts";
import { Subscription } from "./topics/subscription.ts";

/** How long {@link Topics.close} waits for answers by default: long enough for a disk, and a round trip. */
const CLOSE_WITHIN = 5_000;

/** How a client of topics stands. */
export interface TopicsStats {
  /** The log of the node that the client is connected to, and that node's name. Nothing while there is none. */
  readonly log: string | undefined;
  readonly node: string | undefined;
  /** How many connections were opened. */
  readonly connections: number;
  /** Subscriptions that have not ended. */
  readonly subscriptions: number;
  /** Published messages without an answer, and what they cost in bytes. */
  readonly unanswered: number;
  readonly unansweredBytes: number;
  /** Messages that a node has confirmed as stored, and that were refused. */
  readonly stored: number;
  readonly refused: number;
}

/**
 * A client of one or more nodes that serve the same log.
 *
 * It connects in the background and goes on until {@link close}: when a connection is lost, it goes to the
 * next address, and every subscription continues from its position. Messages without an answer are published
 * again, with the same numbers, so each is stored once.
 */
export class Topics extends EventTarget {
  readonly #keeper: Keeper;
  #closing: Promise<void> | undefined;

  /** Throws an `UnstallError` with the code `options` if a URL or an option makes no sense. */
  constructor(urls: string | URL | readonly (string | URL)[], options: TopicsOptions = {}) {
    super();
    this.#keeper = new Keeper(urls, options, (name, detail) => {
      this.dispatchEvent(new CustomEvent(name, { detail }));
    });
    onAbort(options.signal, this.#keeper.over.promise, (why) => this.#stop(why.message));
    this.#keeper.connector.start();
  }

  /**
   * Subscribes to a filter: a topic, or a pattern with `*` for one token and `>` for all the rest. It returns
   * at once; the connection is made in the background.
   *
   * Throws an `UnstallError` with the code `options` if the filter or an option makes no sense.
   */
  subscribe(filter: string, options: SubscribeOptions = {}): Subscription {
    const core: CoreSubscription = this.#keeper.core.subscribe(
      filter,
      startOf(filter, options),
      boundsOf(options),
    );
    const subscription = new Subscription(this.#keeper, core, options);
    this.#keeper.later();
    return subscription;
  }

  /**
   * Publishes a message, and resolves when it is safe. While there is no connection, it waits for one. To
   * publish faster, do not wait for each: messages that are published together share packets.
   *
   * Rejects with a {@link PublishError}, which says whether the message may be stored all the same. If `signal`
   * is aborted, it rejects with the code `aborted`, and the message may be stored or not.
   */
  publish(
    topic: string,
    data: Sendable,
    options: { final?: boolean; signal?: AbortSignal } = {},
  ): Promise<Stored> {
    const { final = false, signal } = options;
    const stored = this.#keeper.publisher.publish({ topic, data, final }, signal);
    this.#keeper.later();
    return stored;
  }

  /**
   * Publishes messages in order, many in a packet, and resolves when each is stored or refused. The results
   * are in the same order.
   */
  publishMany(publications: Iterable<Publication>): Promise<(Stored | PublishError)[]> {
    const failed = (error: unknown) => {
      if (error instanceof PublishError) return error;
      throw error;
    };
    const all = Array.from(publications, (it) => this.#keeper.publisher.publish(it).catch(failed));
    this.#keeper.later();
    const results = Promise.all(all);
    // If nobody waits for it, nobody is to hear of it.
    results.catch(() => {});
    return results;
  }

  /** How it stands. */
  get stats(): TopicsStats {
    const { core, publisher, connector, readers } = this.#keeper;
    return {
      log: core.welcome?.log,
      node: core.welcome && printable(core.welcome.name),
      connections: connector.connections,
      subscriptions: readers.size,
      unanswered: publisher.length,
      unansweredBytes: core.publishing.cost,
      stored: publisher.stored,
      refused: publisher.refused,
    };
  }

  /**
   * Waits until everything published is answered, at most `within` milliseconds (default 5,000), and ends the
   * client. What has no answer then rejects with a {@link PublishError}. Subscriptions deliver what has
   * arrived, and then reject with the code `closed`.
   */
  close(options: { within?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(options.within ?? CLOSE_WITHIN);
    return this.#closing;
  }

  async #close(within: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, within);
    });
    await Promise.race([this.#keeper.publisher.flushed(), late]);
    clearTimeout(timer);
    this.#stop("the application closed the client");
  }

  #stop(why: string): void {
    this.#keeper.stop(new UnstallError("closed", why));
  }

  override addEventListener<Name extends keyof TopicsEvents>(
    type: Name,
    listener: (event: CustomEvent<TopicsEvents[Name]>) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(
    type: string,
    listener: unknown,
    options?: boolean | AddEventListenerOptions,
  ): void {
    super.addEventListener(type, listener as EventListener, options);
  }
}
