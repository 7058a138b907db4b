/** Keeps the model up to date: one answer for the beginning, then what changes, by the client of topics. */

import { Topics } from "../src/index.ts";
import type { Model } from "./model.ts";
import type { Changes, History, Status, SubscriptionRow, Told } from "./types.ts";

const TOKEN = "unstall-token";
/** How soon to ask again for an answer that failed, in milliseconds. */
const AGAIN = 1_000;
/** If nothing was told for so long, the server is not there, whatever its connection says. */
const SILENT = 5_000;

export type Link = { state: "live" | "lost" | "refused"; why: string };

/** The server answers, and not with what was asked for. */
class Refused extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

function bearer(): string | undefined {
  return sessionStorage.getItem(TOKEN) ?? undefined;
}

export function setToken(token: string): void {
  sessionStorage.setItem(TOKEN, token.trim());
}

/** Asks for an answer. */
export async function ask<T>(path: string): Promise<T> {
  const token = bearer();
  const headers: Record<string, string> =
    token === undefined ? {} : { authorization: `Bearer ${token}` };
  const response = await fetch(path, {
    headers,
    cache: "no-store",
    signal: AbortSignal.timeout(10_000),
  });
  if (response.ok) return response.json();
  const { error = response.statusText } = await response.json().catch(() => ({}));
  throw new Refused(response.status, error);
}

export class Feed {
  readonly #model: Model;
  readonly #changed: () => void;
  readonly #linked: (link: Link) => void;
  #wake: (() => void) | undefined;

  constructor(model: Model, changed: () => void, linked: (link: Link) => void) {
    this.#model = model;
    this.#changed = changed;
    this.#linked = linked;
  }

  /** Tries again at once. */
  again(): void {
    this.#wake?.();
  }

  /** Goes on for as long as the page lives. */
  async run(): Promise<never> {
    for (;;) {
      try {
        await this.#follow();
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        const refused = error instanceof Refused && (error.status === 401 || error.status === 403);
        this.#linked({ state: refused ? "refused" : "lost", why });
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, AGAIN);
      });
    }
  }

  /** Begins, and follows what changes until something is missing. */
  async #follow(): Promise<void> {
    const [status, history] = await Promise.all([
      ask<Status>("/status.json"),
      ask<History>("/status/history.json"),
    ]);
    const model = this.#model;
    model.begin(status, history);
    this.#changed();
    const stop = new AbortController();
    const token = bearer();
    const topics = new Topics("/status/live", {
      reconnect: { max: 1_000 },
      signal: stop.signal,
      ...(token !== undefined && { token: () => token }),
    });
    let heard = Date.now();
    // A server that was started again has another log: nothing goes on from here.
    const [log] = status.position.split(":");
    topics.addEventListener("welcomed", ((event: CustomEvent<{ log: string }>) => {
      if (event.detail.log !== log) stop.abort();
      else this.#linked({ state: "live", why: "" });
    }) as EventListener);
    topics.addEventListener("disconnected", () => {
      this.#linked({ state: "lost", why: "the connection is lost" });
    });
    const watch = setInterval(() => {
      if (Date.now() - heard > SILENT) this.#linked({ state: "lost", why: "the server says nothing" });
    }, 1_000);
    try {
      const subscription = topics.subscribe("status.>", { after: status.position, signal: stop.signal });
      for await (const batch of subscription.batches()) {
        for (const delivery of batch) {
          if (delivery.type === "gap") return;
          if (delivery.type === "message") this.#take(delivery.topic, String(delivery.data));
        }
        heard = Date.now();
        this.#linked({ state: "live", why: "" });
        this.#changed();
      }
    } catch (error) {
      if (!stop.signal.aborted) throw error;
    } finally {
      clearInterval(watch);
      void topics.close({ within: 0 });
    }
  }

  #take(topic: string, text: string): void {
    const body: unknown = JSON.parse(text);
    if (topic === "status.now") this.#model.tell(body as Told);
    else if (topic === "status.rows") this.#model.change(body as Changes);
    else if (topic === "status.subscriptions") this.#model.subscriptions = body as SubscriptionRow[];
  }
}
