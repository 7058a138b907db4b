import * as limits from "../../src/core/limits.ts";
import { settled } from "../../src/core/limits.ts";
import * as wire from "../../src/core/packet.ts";
import { type Packet, Violation } from "../../src/core/packet.ts";
import { ATTACHED, Session, WELCOME_OWED } from "../../src/core/session.ts";
import { REJECTIONS } from "./names.ts";

/** The name of a rejection. */
export type ServerRejection = string;

/** The fields of HELLO. */
function helloOf(packet: Packet) {
  const [, id, token, epoch, generation, received, acked, credit, largest] = packet;
  const numbers = { epoch, generation, received, acked, largest };
  const plain = Object.fromEntries(
    Object.entries(numbers).map(([name, value]) => [name, Number(value)]),
  );
  return {
    id: id as Uint8Array,
    token: token as Uint8Array,
    credit: credit as bigint,
    ...(plain as Record<keyof typeof numbers, number>),
  };
}
type Hello = ReturnType<typeof helloOf>;

const same = (a: Uint8Array | undefined, b: Uint8Array | undefined) =>
  a !== undefined && b !== undefined && Buffer.from(a).equals(b);

/** The server's side of a session: what the client's has no use for. It is not published. */
export class ServerSession extends Session {
  #confirmed: Uint8Array;
  #offered: Uint8Array | undefined;
  #goAway: { window: number; reason: string } | undefined;

  private constructor(config: Partial<limits.Config>, hello: Hello, epoch: number) {
    super(config, hello.id, hello.token);
    this.#confirmed = hello.token;
    this.epoch = BigInt(epoch);
    this.peerLargest = hello.largest;
  }

  /** A session for a HELLO whose session the server does not have. */
  static open(
    config: Partial<limits.Config>,
    packet: Packet,
    epoch: number,
    nextToken: Uint8Array,
  ): ServerSession | ServerRejection {
    const hello = helloOf(packet);
    if (hello.epoch !== 0) return hello.epoch === epoch ? "expired" : "unknown";
    if (hello.received !== 0 || hello.credit < limits.MIN_WINDOW) return "inconsistent";
    const session = new ServerSession(settled(config), hello, epoch);
    session.events.push({ type: "opened" });
    return session.resume(packet, nextToken) ?? session;
  }

  /** Another connection has sent HELLO. */
  resume(packet: Packet, nextToken: Uint8Array): ServerRejection | undefined {
    const { token, generation, received, acked, credit } = helloOf(packet);
    if (!same(token, this.#confirmed) && !same(token, this.#offered)) return "not yours";
    if (this.isOver || this.hasEnded) return "expired";
    if (generation <= this.generation) return "superseded";
    try {
      this.outbox.checkResume(received, acked);
    } catch (error) {
      if (error instanceof Violation) return "inconsistent";
      throw error;
    }
    const first = this.generation === 0;
    this.#confirmed = token;
    this.#offered = nextToken;
    this.newConnection(WELCOME_OWED, generation);
    const replayed = this.continueFrom(received, acked, credit);
    if (!first) this.events.push({ type: "resumed", generation: this.generation, replayed });
    return undefined;
  }

  goAway(window: number, reason: string): void {
    this.#goAway = { window, reason };
  }

  protected override confirmToken(): void {
    if (!this.#offered) return;
    this.#confirmed = this.#offered;
    this.#offered = undefined;
  }

  protected override handleAttached(now: number, packet: Packet): void {
    if (packet[0] === wire.GOAWAY) throw new Violation(wire.UNEXPECTED);
    super.handleAttached(now, packet);
  }

  protected override greeting(): Packet {
    this.phase = ATTACHED;
    const token = this.#offered ?? this.#confirmed;
    return [wire.WELCOME, token, this.epoch, ...this.positions(this.tellAck()), this.life];
  }

  protected override nextSign(now: number): Packet | undefined {
    const sign = super.nextSign(now);
    if (sign) return sign;
    const goAway = this.#goAway;
    this.#goAway = undefined;
    return goAway && [wire.GOAWAY, goAway.window, goAway.reason];
  }
}

/** REJECT for a reason. */
export const reject = (rejection: ServerRejection): Uint8Array =>
  wire.encode([wire.REJECT, REJECTIONS.indexOf(rejection) + 1, 0]);
