import { CHECK_TIMEOUT, LATE_GRACE, LATE_TIMER } from "./defaults.ts";

/**
 * Whether a connection is alive, as far as a browser can know: WebSocket pings are hidden from it, so the
 * protocol's own pings are sent. Any received message is a sign of life.
 *
 * Timers of hidden pages run once a minute, and a machine may sleep. So a timer that is late proves nothing:
 * the answer may have arrived and not been handled. Then the peer gets one more chance. It has no clock and
 * no timer of its own: whoever has one calls {@link tick} at {@link due}.
 */
export class Liveness {
  readonly #interval: number;
  readonly #silence: number;
  #heard: number;
  /** When a ping was sent that has no answer yet. */
  #asked: number | undefined;
  #deadline = 0;
  #forgiven = false;
  /** When to call {@link tick} next. */
  due: number;

  constructor(interval: number, silence: number, now: number) {
    this.#interval = interval;
    this.#silence = silence;
    this.#heard = now;
    this.due = now + interval;
  }

  /** Something was received. Returns whether {@link due} has changed. */
  heard(now: number): boolean {
    this.#heard = now;
    if (this.#asked === undefined) return false;
    this.#asked = undefined;
    this.#forgiven = false;
    this.due = now + this.#interval;
    return true;
  }

  /** The page is seen again, or the network changed: ask at once, and wait for the answer only shortly. */
  check(now: number): "ping" {
    return this.#ask(now, CHECK_TIMEOUT);
  }

  #ask(now: number, within: number): "ping" {
    this.#asked = now;
    this.#deadline = now + Math.min(within, this.#silence);
    this.due = this.#deadline;
    return "ping";
  }

  /** What to do now. */
  tick(now: number): "ping" | "lost" | undefined {
    if (this.#asked === undefined) {
      if (now >= this.#heard + this.#interval) {
        return this.#ask(now, Math.max(this.#silence - this.#interval, LATE_GRACE));
      }
      this.due = this.#heard + this.#interval;
      return undefined;
    }
    if (now < this.#deadline) {
      this.due = this.#deadline;
      return undefined;
    }
    if (now > this.due + LATE_TIMER && !this.#forgiven) {
      this.#forgiven = true;
      return this.#ask(now, CHECK_TIMEOUT);
    }
    return "lost";
  }
}
