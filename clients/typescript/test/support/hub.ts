import { once } from "node:events";
import { type Served, serve } from "./programs.ts";

/** A real `unstall hub`, which tests kill and start again. */
export class Hub {
  readonly #args: string[];
  #served: Served | undefined;
  port = 0;

  private constructor(args: string[]) {
    this.#args = args;
  }

  static async start(...args: string[]): Promise<Hub> {
    const hub = new Hub(args);
    await hub.start();
    return hub;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}/topics`;
  }

  get http(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Starts it, at the port that it had before. */
  async start(): Promise<void> {
    this.#served = await serve("hub", this.#args, this.port);
    this.port = this.#served.port;
  }

  /** Ends it, by default as a crash would. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.#served?.process;
    this.#served = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill(signal);
    await exited;
  }
}
