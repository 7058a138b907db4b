import { connect, createServer, type Server, type Socket } from "node:net";

/** Numbers that follow from a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A TCP proxy that harms what goes through it. */
export class FaultProxy {
  readonly #server: Server;
  readonly #pairs = new Set<[Socket, Socket]>();
  #frozen = false;
  #refusing = false;
  /** How many bytes each next connection may carry, both ways together, before it is cut. */
  nextLimit: () => number = () => Number.POSITIVE_INFINITY;
  connections = 0;
  cuts = 0;

  private constructor(target: number) {
    this.#server = createServer((client) => this.#accept(client, target));
  }

  static async start(target: number): Promise<FaultProxy> {
    const proxy = new FaultProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the proxy does not listen");
    return `ws://127.0.0.1:${address.port}`;
  }

  #accept(client: Socket, target: number): void {
    if (this.#refusing) {
      client.destroy();
      return;
    }
    this.connections += 1;
    const server = connect(target, "127.0.0.1");
    const pair: [Socket, Socket] = [client, server];
    this.#pairs.add(pair);
    const end = () => {
      client.destroy();
      server.destroy();
      this.#pairs.delete(pair);
    };
    let left = this.nextLimit();
    const carry = (from: Socket, to: Socket) => {
      from.on("data", (data) => {
        const part = data.subarray(0, Math.max(left, 0));
        left -= data.length;
        if (!to.write(part)) {
          from.pause();
          to.once("drain", () => this.#frozen || from.resume());
        }
        if (left > 0) return;
        this.cuts += 1;
        end();
      });
      from.on("error", end);
      from.on("close", end);
      if (this.#frozen) from.pause();
    };
    carry(client, server);
    carry(server, client);
  }

  /** Cuts every connection now. */
  cut(): void {
    for (const pair of this.#pairs) {
      this.cuts += 1;
      for (const socket of pair) socket.destroy();
    }
  }

  /** Nothing goes through any more, and no connection ends: a network that has failed. */
  freeze(frozen = true): void {
    this.#frozen = frozen;
    for (const pair of this.#pairs) for (const socket of pair) frozen ? socket.pause() : socket.resume();
  }

  /** New connections are closed at once. */
  refuse(refusing = true): void {
    this.#refusing = refusing;
  }

  async stop(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

/** Waits until it holds. */
export async function until(
  holds: () => boolean | Promise<boolean>,
  what: string,
  within = 60_000,
): Promise<void> {
  const deadline = performance.now() + within;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`after ${within} ms not yet: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
