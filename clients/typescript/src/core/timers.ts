// Timers, in the order in which they fire at the same moment: SPEC.md, section 14.
export const ACKNOWLEDGE = 0;
export const HANDSHAKE = 1;
export const EXPIRY = 2;
export const CLOSE = 3;

const NEVER = Number.POSITIVE_INFINITY;

export class Timers {
  readonly #at = [NEVER, NEVER, NEVER, NEVER];

  /** The next moment; `Infinity` if no timer runs. */
  get next(): number {
    return Math.min(...this.#at);
  }

  set(timer: number, at: number): void {
    this.#at[timer] = at;
  }

  /** Starts it, unless it runs. */
  start(timer: number, at: number): void {
    if (this.#at[timer] === NEVER) this.#at[timer] = at;
  }

  shorten(timer: number, at: number): void {
    this.#at[timer] = Math.min(this.#at[timer]!, at);
  }

  stop(timer: number): void {
    this.#at[timer] = NEVER;
  }

  stopAll(): void {
    this.#at.fill(NEVER);
  }

  /** The next one that has fired, if one has. */
  fired(now: number): number | undefined {
    const at = this.next;
    if (at > now) return undefined;
    const timer = this.#at.indexOf(at);
    this.stop(timer);
    return timer;
  }
}
