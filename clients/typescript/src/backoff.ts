import { RECONNECT_AT_ONCE, RECONNECT_FIRST, RECONNECT_MAX, RECONNECT_PROOF } from "./defaults.ts";

/**
 * When and how often to connect again. All times are milliseconds.
 *
 * A connection has proved itself if it lived for `proof` and received something, or if it moved messages of
 * a session. When such a connection is lost after at least 100 ms, the first attempt does not wait. All other
 * attempts wait. Each wait is random, evenly between zero and a bound that doubles from `first` to `max`
 * (full jitter). If a server asks for a wait, it is added.
 */
export interface ReconnectOptions {
  /** The bound of the first wait. Default 250. */
  first?: number;
  /** The bound of the longest wait. Default 30,000. */
  max?: number;
  /** A connection that lived this long and received something has proved itself. Default 10,000. */
  proof?: number;
  /** Gives up after this many failed attempts in a row. By default it never gives up. */
  attempts?: number;
}

/** The waits between attempts. It has no clock and no timer. */
export class Backoff {
  readonly #first: number;
  readonly #max: number;
  readonly #proof: number;
  readonly #attempts: number;
  readonly #random: () => number;
  #waits = 0;
  #atOnce = false;
  #networkIsBack = false;

  constructor(options: ReconnectOptions = {}, random: () => number = Math.random) {
    this.#first = options.first ?? RECONNECT_FIRST;
    this.#max = options.max ?? RECONNECT_MAX;
    this.#proof = options.proof ?? RECONNECT_PROOF;
    this.#attempts = options.attempts ?? Number.POSITIVE_INFINITY;
    this.#random = random;
  }

  /** The next wait. */
  next(): number {
    if (this.#atOnce) {
      this.#atOnce = false;
      return 0;
    }
    let bound = Math.min(this.#first * 2 ** Math.min(this.#waits, 20), this.#max);
    if (this.#networkIsBack) bound = Math.min(bound, RECONNECT_FIRST);
    this.#networkIsBack = false;
    this.#waits += 1;
    return bound * this.#random();
  }

  /** A connection ended. If it had proved itself, the waits start from the first one again. */
  lived(lasted: number, received: boolean, progressed: boolean): void {
    if (progressed || (received && lasted >= this.#proof)) {
      this.#waits = 0;
      this.#atOnce = lasted >= RECONNECT_AT_ONCE;
    }
  }

  /**
   * The network is back: the waits start from the first one again. The next one is short, whatever the options
   * say, but random: the pages of one network must not come all at the same moment.
   */
  reset(): void {
    this.#waits = 0;
    this.#networkIsBack = true;
  }

  /** Whether another attempt may follow after this many failures in a row. */
  allows(failures: number): boolean {
    return failures < this.#attempts;
  }
}
