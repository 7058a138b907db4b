import type { Position } from "./inbox.ts";
import { ACK_RECORD } from "./limits.ts";

/** What may be acknowledged, and what was: SPEC.md, section 6. */
export class Acks {
  readonly #cost: number;
  /** The end of what may be acknowledged, and of what was. */
  ready: Position = { seq: 0, offset: 0 };
  #told: Position = this.ready;
  /** Acknowledge now, and do not wait for more. */
  urgent = false;
  /** Acknowledge even if nothing is new: the first packet after WELCOME confirms the new token. */
  confirm = false;

  /** Acknowledges after this cost. */
  constructor(cost: number) {
    this.#cost = cost;
  }

  get isOwed(): boolean {
    return this.confirm || this.ready.seq > this.#told.seq;
  }

  /** Whether to acknowledge now, also when nothing else is to be sent. */
  get isDue(): boolean {
    return (
      this.isOwed &&
      (this.confirm ||
        this.urgent ||
        this.ready.offset - this.#told.offset >= this.#cost ||
        this.ready.seq - this.#told.seq >= this.#cost / ACK_RECORD)
    );
  }

  tell(): number {
    this.#told = this.ready;
    this.urgent = this.confirm = false;
    return this.ready.seq;
  }
}
