import { text, utf8 } from "../core/bytes.ts";
import { MAX_TOKEN } from "../core/topics/limits.ts";
import { UnstallError } from "../errors.ts";
import { tokenOf } from "../upgrade.ts";
import type { TopicsOptions } from "./options.ts";

/** The longest wait of a timer. */
const MAX_WAIT = 2 ** 31 - 1;
/** Between two calls of a token function that fails. */
const AGAIN = 5_000;
/** A token that lives shorter is of no use. Tokens are not renewed more often. */
const LEAST_LIFE = 1_000;

/** When a JSON Web Token expires, in milliseconds since 1970. Nothing if it does not say. */
export function expiryOf(token: string): number | undefined {
  try {
    const [, claims = ""] = token.split(".");
    const binary = atob(claims.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
    const { exp } = JSON.parse(text(bytes) ?? "");
    return typeof exp === "number" ? exp * 1_000 : undefined;
  } catch {
    return undefined;
  }
}

/** Gets the tokens of the application, and a new one before the present one expires. */
export class Tokens {
  readonly #token: TopicsOptions["token"];
  readonly #renewed: (token: string) => void;
  readonly #failed: (why: UnstallError) => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asking: Promise<void> | undefined;
  /** When it was renewed last. */
  #renewedAt = 0;
  /** The present token has expired. */
  isStale = false;
  #stopped = false;
  /** The one that was given last. */
  last = "";

  constructor(
    token: TopicsOptions["token"],
    renewed: (token: string) => void,
    failed: (why: UnstallError) => void,
  ) {
    this.#token = token;
    this.#renewed = renewed;
    this.#failed = failed;
  }

  /** Whether another one can be had. */
  get areRenewed(): boolean {
    return typeof this.#token === "function";
  }

  /** The token for the next connection. */
  async next(): Promise<void> {
    const token = (await tokenOf(this.#token)) ?? "";
    if (!/^[!-~]*$/.test(token) || utf8(token).length > MAX_TOKEN)
      throw new UnstallError(
        "token",
        "a token is at most 8,192 visible ASCII characters",
        this.areRenewed,
      );
    this.last = token;
    this.isStale = false;
    const expiry = this.areRenewed ? expiryOf(token) : undefined;
    // Timers of hidden pages are late by a minute, and the function takes its time.
    if (expiry !== undefined) this.#renewIn(Math.max((expiry - Date.now()) * 0.75, 1_000));
  }

  #renewIn(wait: number): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    this.#timer = setTimeout(() => this.#renewNow(), Math.min(wait, MAX_WAIT));
  }

  /** The present token has expired: asks for another one. */
  expired(): void {
    this.isStale = true;
    const wait = this.#renewedAt + LEAST_LIFE - Date.now();
    if (wait > 0) this.#renewIn(wait);
    else this.#renewNow();
  }

  #renewNow(): void {
    this.#asking ??= this.#renew().finally(() => {
      this.#asking = undefined;
    });
  }

  async #renew(): Promise<void> {
    try {
      await this.next();
      this.#renewedAt = Date.now();
      if (!this.#stopped) this.#renewed(this.last);
    } catch (error) {
      this.#failed(error as UnstallError);
      this.#renewIn(AGAIN);
    }
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#stopped = true;
  }
}
