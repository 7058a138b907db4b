import type { Config } from "../../src/core/limits.ts";
import { decode, type Packet, SEQUENCE_GAP } from "../../src/core/packet.ts";
import {
  CLOSED,
  type CoreEvent,
  type EndReason,
  FULL,
  type Refusal,
  Session,
  TOO_LARGE,
} from "../../src/core/session.ts";
import { packetValue, payloadValue, repeated, unhex } from "./hex.ts";
import { errorName, rejectionName } from "./names.ts";
import { reject, ServerSession } from "./server-session.ts";

/** A script of vectors/sessions.json. vectors/README.md describes it. */
export interface Script {
  name: string;
  client: Options;
  server: Options;
  steps: Step[];
}
type Options = Record<string, number | boolean>;
export type Step = Record<string, unknown> & { do: string };
type Side = "client" | "server";

/** The arguments of steps; everything else in a step is a result. */
const ARGUMENTS = [
  ...["do", "from", "to", "side", "text", "hex", "repeat", "code", "reason", "within", "millis"],
  ...["epoch", "note"],
];

const config = (options: Options): Partial<Config> => {
  const names: Record<string, keyof Config> = {
    window: "window",
    largest_window: "largestWindow",
    largest_message: "largestMessage",
    replay: "replay",
    expiry: "expiry",
    acknowledge_by_hand: "acknowledgeByHand",
  };
  return Object.fromEntries(
    Object.entries(options).map(([name, value]) => {
      const known = names[name];
      if (!known) throw new Error(`an unknown option ${name}`);
      return [known, value];
    }),
  );
};

/** Goes through a script, and says what came of each step. */
export class Runner {
  readonly #script: Script;
  #now = 0;
  readonly #client: Session;
  #server: ServerSession | undefined;
  #onClient = 0;
  #onServer = 0;
  #reject: Uint8Array | undefined;
  #epoch = 7;
  #tokens = 0xa0;
  /** The client has a connection that the server has not heard of. */
  #greeting = false;
  readonly #taken = { client: { seq: 0, offset: 0 }, server: { seq: 0, offset: 0 } };

  constructor(script: Script) {
    this.#script = script;
    const sixteen = (byte: number) => new Uint8Array(16).fill(byte);
    this.#client = new Session(config(script.client), sixteen(1), sixteen(2));
  }

  /** Every step with its arguments, and its results as they are here. */
  run(): Step[] {
    return this.#script.steps.map((step) => {
      const given = Object.fromEntries(
        Object.entries(step).filter(([name]) => ARGUMENTS.includes(name)),
      );
      return { ...given, ...this.step(given as Step) } as Step;
    });
  }

  #session(side: Side): Session {
    if (side === "client") return this.#client;
    if (!this.#server) throw new Error("the server has no session");
    return this.#server;
  }

  step(step: Step): Record<string, unknown> {
    const results = this.#do(step);
    const events = this.#events();
    return Object.keys(events).length > 0 ? { ...results, events } : results;
  }

  #do(step: Step): Record<string, unknown> {
    const now = this.#now;
    const side = step.side as Side;
    switch (step.do) {
      case "connect":
        this.#onClient = this.#client.attach(now);
        if (this.#onClient === 0) throw new Error("the client wants no connection");
        this.#onServer = 0;
        this.#greeting = true;
        return { generation: this.#onClient };
      case "carry":
        return this.#carry(step.from as Side);
      case "lose":
        return { packets: this.#packetsOf(step.from as Side).map(packetValue) };
      case "inject":
        return this.#inject(step);
      case "cut":
        this.#detach(side);
        return {};
      case "send":
        return this.#send(step);
      case "take":
        return this.#take(side);
      case "undelivered": {
        const list = this.#session(side).undelivered();
        return { messages: list.map(({ data, fate }) => ({ ...payloadValue(data), fate })) };
      }
      case "wait":
        this.#now += step.millis as number;
        this.#client.handleTimeout(this.#now);
        this.#server?.handleTimeout(this.#now);
        return {};
      default:
        this.#control(step);
        return {};
    }
  }

  #control(step: Step): void {
    const now = this.#now;
    const reason = (step.reason as string) ?? "";
    const within = (step.within as number) ?? 0;
    const session = () => this.#session(step.side as Side);
    switch (step.do) {
      case "close":
        return session().close(now, step.code as number, reason, within);
      case "abort":
        return session().abort(reason);
      case "ping":
        return session().ping();
      case "acknowledge":
        return session().acknowledge(now, this.#taken[step.side as Side]);
      case "go_away":
        return (this.#session("server") as ServerSession).goAway(within, reason);
      case "restart":
        this.#server = undefined;
        this.#onServer = 0;
        this.#epoch = step.epoch as number;
        return;
      default:
        throw new Error(`an unknown step ${step.do}`);
    }
  }

  #inject(step: Step): Record<string, unknown> {
    const to = step.to as Side;
    let refusal: Refusal | undefined;
    if (typeof step.text === "string") {
      refusal = this.#session(to).handleText(this.#now, this.#generation(to));
    } else {
      const repeat = step.repeat as { byte: number; length: number } | undefined;
      const tail = repeat ? repeated(repeat) : new Uint8Array(0);
      const packet = Buffer.concat([unhex(step.hex as string), tail]);
      if (to === "server" && this.#greeting) {
        this.#greet(packet);
        return {};
      }
      refusal = this.#session(to).handlePacket(this.#now, this.#generation(to), packet);
    }
    return refusal ? { error: this.#refused(to, refusal) } : {};
  }

  #send(step: Step): Record<string, unknown> {
    const { text, hex } = step as { text?: string; hex?: string };
    const binary = () =>
      hex === undefined ? repeated(step.repeat as { byte: number; length: number }) : unhex(hex);
    const seq = this.#session(step.side as Side).send(text ?? binary());
    const errors: Record<number, string> = {
      [FULL]: "full",
      [TOO_LARGE]: "too large",
      [CLOSED]: "closed",
    };
    return seq > 0 ? { seq } : { error: errors[seq] };
  }

  #take(side: Side): Record<string, unknown> {
    const session = this.#session(side);
    const messages: unknown[] = [];
    let end: unknown;
    for (;;) {
      const received = session.receive();
      if (!received) break;
      if (received.type === "messages") {
        this.#taken[side] = received.batch.end;
        session.taken(this.#now, received.batch.end);
        messages.push(...received.batch.messages.map(payloadValue));
      } else {
        end = received.reason ? { discontinuity: reasonValue(received.reason) } : "closed";
      }
    }
    return end === undefined ? { messages } : { messages, end };
  }

  #generation(side: Side): number {
    return side === "client" ? this.#onClient : this.#onServer;
  }

  #packetsOf(from: Side): Uint8Array[] {
    const packets: Uint8Array[] = [];
    if (from === "server" && this.#reject) {
      packets.push(this.#reject);
      this.#reject = undefined;
    }
    if (this.#generation(from) === 0) return packets;
    for (;;) {
      const packet = this.#session(from).transmit(this.#now, this.#generation(from));
      if (!packet) return packets;
      // The core keeps a packet for replay, and the other side must not share its memory.
      packets.push(packet.slice());
    }
  }

  #carry(from: Side): Record<string, unknown> {
    const sent = this.#packetsOf(from);
    const packets = sent.map(packetValue);
    const to = from === "client" ? "server" : "client";
    for (const packet of sent) {
      if (to === "server" && this.#greeting) {
        this.#greet(packet);
        continue;
      }
      const refusal = this.#session(to).handlePacket(this.#now, this.#generation(to), packet);
      if (!refusal) continue;
      const error = this.#refused(to, refusal);
      this.#detach(from);
      return { packets, error };
    }
    return { packets };
  }

  #refused(to: Side, refusal: Refusal): string {
    const resumable =
      (refusal.type === "protocol" && refusal.error === SEQUENCE_GAP) ||
      (refusal.type === "rejected" && rejectionName(refusal.rejection) === "full");
    // A farewell is sent before the connection is lost.
    if (this.#session(to).isOver || resumable) this.#detach(to);
    if (refusal.type === "protocol") return errorName(refusal.error);
    return refusal.type === "rejected" ? rejectionName(refusal.rejection) : "not the current connection";
  }

  #greet(packet: Uint8Array): void {
    this.#greeting = false;
    const hello: Packet = decode(packet);
    const token = new Uint8Array(16).fill(this.#tokens++);
    let rejection: Parameters<typeof reject>[0] | undefined;
    if (this.#server && !this.#server.isOver) {
      rejection = this.#server.resume(hello, token);
    } else {
      const opened = ServerSession.open(config(this.#script.server), hello, this.#epoch, token);
      if (opened instanceof ServerSession) this.#server = opened;
      else rejection = opened;
    }
    if (rejection) this.#reject = reject(rejection);
    else this.#onServer = Number(hello[4]);
  }

  #detach(side: Side): void {
    const generation = this.#generation(side);
    if (generation > 0) this.#session(side).detach(this.#now, generation);
  }

  #events(): Record<string, unknown> {
    const events: Record<string, unknown> = {};
    for (const [name, session] of [
      ["client", this.#client],
      ["server", this.#server],
    ] as const) {
      const list = session?.events.splice(0).map(eventValue) ?? [];
      if (list.length > 0) events[name] = list;
    }
    return events;
  }
}

function reasonValue(reason: EndReason): unknown {
  switch (reason.type) {
    case "closed":
      return { closed: reason.code, reason: reason.reason };
    case "aborted":
      return { aborted: reason.reason };
    case "aborted by peer":
      return { aborted_by_peer: reason.code };
    case "rejected":
      return { rejected: rejectionName(reason.rejection) };
    case "protocol":
      return { protocol: errorName(reason.error) };
    default:
      return reason.type;
  }
}

function eventValue(event: CoreEvent): unknown {
  switch (event.type) {
    case "resumed":
      return { resumed: event.generation, replayed: event.replayed };
    case "handshake timed out":
      return { handshake_timed_out: event.generation };
    case "pong":
      return { pong_after: event.roundTrip };
    case "go away":
      return { go_away_within: event.within, reason: event.reason };
    case "closing":
      return { closing: event.code, reason: event.reason };
    case "ended":
      return { ended: reasonValue(event.reason) };
    default:
      return event.type;
  }
}

/** The words of ABORT are the implementation's own. */
export function withoutWords(step: Step): Step {
  const packets = step.packets as unknown[] | undefined;
  if (!packets) return step;
  const cut = (packet: unknown) =>
    typeof packet === "string" && packet.startsWith("1a") ? packet.slice(0, 6) : packet;
  return { ...step, packets: packets.map(cut) };
}
