import type { Connector } from "./connection.ts";
import { messageCost } from "./core/limits.ts";
import type { Message } from "./core/record.ts";
import type { UnstallError } from "./errors.ts";
import { Gap } from "./gap.ts";
import type { Queue } from "./queue.ts";

/** In memory a text takes two bytes for each of its units at most. */
const costOf = (message: Message) => messageCost(message.length * (typeof message === "string" ? 2 : 1));

/**
 * A plain WebSocket connection: with a server that does not speak `unstall.v1`. What is lost with it stays
 * lost, and the received stream says so by a {@link Gap}.
 */
export class Plain {
  readonly #connector: Connector;
  readonly #queue: Queue;
  readonly #sendLimit: number;
  readonly #receiveLimit: number;
  #unsent: Message[] = [];
  #cost = 0;
  #paused = false;
  #dropped = 0;
  #lostBecause: UnstallError | undefined;

  constructor(connector: Connector, queue: Queue, sendLimit: number, receiveLimit: number) {
    this.#connector = connector;
    this.#queue = queue;
    this.#sendLimit = sendLimit;
    this.#receiveLimit = receiveLimit;
  }

  /** Accepts a message if there is room. */
  send(message: Message): boolean {
    const cost = costOf(message);
    if (this.#unsent.length > 0 && this.#cost + cost > this.#sendLimit) return false;
    // The application may change its bytes before they are sent. `slice` of Node's Buffer copies nothing.
    this.#unsent.push(typeof message === "string" ? message : new Uint8Array(message));
    this.#cost += cost;
    return true;
  }

  get unsent(): number {
    return this.#cost;
  }

  get isIdle(): boolean {
    return this.#unsent.length === 0;
  }

  /** Gives the WebSocket what it has room for. */
  pump(): void {
    let sent = 0;
    while (sent < this.#unsent.length && this.#connector.hasRoom()) {
      const message = this.#unsent[sent++]!;
      if (typeof message === "string") this.#connector.sendText(message);
      else this.#connector.send(message);
      this.#cost -= costOf(message);
    }
    this.#unsent.splice(0, sent);
    if (this.#paused && this.#queue.cost < this.#receiveLimit / 2) {
      this.#paused = false;
      this.#connector.resume();
    }
  }

  opened(): void {
    this.#paused = false;
    if (this.#lostBecause) this.#queue.pushOne(new Gap("reconnected", this.#lostBecause));
    this.#lostBecause = undefined;
  }

  lost(why: UnstallError): void {
    this.#lostBecause = why;
  }

  received(message: Message): void {
    const cost = costOf(message);
    const full = this.#queue.cost + cost > this.#receiveLimit && this.#queue.cost > 0;
    if (full && !this.#paused) this.#paused = this.#connector.pause();
    if (full && !this.#paused) {
      this.#dropped += 1;
      return;
    }
    this.markDropped();
    this.#queue.pushOne(message, cost);
  }

  /** Says how many messages were dropped here, if some were. */
  markDropped(): void {
    if (this.#dropped > 0) this.#queue.pushOne(new Gap("dropped", undefined, this.#dropped));
    this.#dropped = 0;
  }

  takeUnsent(): Message[] {
    return this.#unsent.splice(0);
  }
}
