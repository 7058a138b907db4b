import * as limits from "../../src/core/limits.ts";
import { settled } from "../../src/core/limits.ts";
import * as wire from "../../src/core/packet.ts";
import { type Packet, Violation } from "../../src/core/packet.ts";
import { REJECTIONS, Session, WELCOME_OWED } from "../../src/core/session.ts";

export type ServerRejection = (typeof REJECTIONS)[number];

const same = (a: Uint8Array | undefined, b: Uint8Array | undefined) =>
  a !== undefined && b !== undefined && Buffer.from(a).equals(b);

/** The server's side of a session: what the client's has no use for. It is not published. */
export class ServerSession extends Session {
  #confirmed: Uint8Array;
  #offered: Uint8Array | undefined;
  #goAway: { window: number; reason: string } | undefined;

  private constructor(config: Partial<limits.Config>, hello: Packet, epoch: number) {
    super(config, hello.session_id!, hello.token!);
    this.#confirmed = hello.token!;
    this.epoch = BigInt(epoch);
    this.peerLargest = Number(hello.largest_message);
  }

  /** A session for a HELLO whose session the server does not have. */
  static open(
    config: Partial<limits.Config>,
    hello: Packet,
    epoch: number,
    nextToken: Uint8Array,
  ): ServerSession | ServerRejection {
    if (Number(hello.epoch) !== 0) return Number(hello.epoch) === epoch ? "expired" : "unknown";
    if (hello.received !== 0n || hello.credit! < limits.MIN_WINDOW) return "inconsistent";
    const session = new ServerSession(settled(config), hello, epoch);
    session.events.push({ type: "opened" });
    return session.resume(hello, nextToken) ?? session;
  }

  /** Another connection has sent HELLO. */
  resume(hello: Packet, nextToken: Uint8Array): ServerRejection | undefined {
    const token = hello.token!;
    if (!same(token, this.#confirmed) && !same(token, this.#offered)) return "not yours";
    if (this.isOver || this.hasEnded) return "expired";
    if (hello.generation! <= this.generation) return "superseded";
    try {
      this.outbox.checkResume(Number(hello.received), Number(hello.acked));
    } catch (error) {
      if (error instanceof Violation) return "inconsistent";
      throw error;
    }
    const first = this.generation === 0;
    this.#confirmed = token;
    this.#offered = nextToken;
    this.newConnection(WELCOME_OWED, Number(hello.generation));
    const replayed = this.continueFrom(hello);
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
    if (packet.kind === wire.GOAWAY) throw new Violation("UNEXPECTED", "GOAWAY from a client");
    super.handleAttached(now, packet);
  }

  protected override greeting(): Packet {
    this.phase = 3;
    const positions = this.positions();
    return {
      kind: wire.WELCOME,
      token: this.#offered ?? this.#confirmed,
      epoch: this.epoch,
      ...positions,
      acked: this.tellAck(),
      life: this.life,
    };
  }

  protected override nextSign(now: number): Packet | undefined {
    const sign = super.nextSign(now);
    if (sign) return sign;
    const goAway = this.#goAway;
    this.#goAway = undefined;
    return goAway && { kind: wire.GOAWAY, ...goAway };
  }
}

/** REJECT for a reason. */
export const reject = (rejection: ServerRejection): Uint8Array =>
  wire.encode({ kind: wire.REJECT, reason: REJECTIONS.indexOf(rejection) + 1, retry_after: 0 });
