import { Acks } from "./acks.ts";
import { utf8 } from "./bytes.ts";
import { type Batch, Inbox, type Position } from "./inbox.ts";
import * as limits from "./limits.ts";
import { Outbox, type Undelivered } from "./outbox.ts";
import * as wire from "./packet.ts";
import { type Packet, Violation } from "./packet.ts";
import type { Message } from "./record.ts";
import { ACKNOWLEDGE, CLOSE, EXPIRY, HANDSHAKE, Timers } from "./timers.ts";

/** The number of a rejection that only says: later (SPEC.md, section 15). */
const REJECTED_FULL = 5;

/** Why a session ended. */
export type EndReason =
  | { type: "closed"; code: number; reason: string }
  | { type: "close timed out" }
  | { type: "aborted"; reason: string }
  | { type: "aborted by peer"; code: number; reason: string }
  | { type: "rejected"; rejection: number }
  | { type: "protocol"; error: number }
  | { type: "expired" };

/** What happened to a session. */
export type CoreEvent =
  | { type: "opened" }
  | { type: "resumed"; generation: number; replayed: number }
  | { type: "handshake timed out"; generation: number }
  | { type: "writable" }
  | { type: "pong"; roundTrip: number }
  | { type: "go away"; within: number; reason: string }
  | { type: "closing"; code: number; reason: string }
  | { type: "ended"; reason: EndReason };

/** What a packet on a connection did to it. After each: send what there still is, then close the connection. */
export type Refusal =
  | { type: "superseded" }
  | { type: "rejected"; rejection: number; retryAfter: number }
  | { type: "protocol"; error: number };

/** What was received: messages, or at last the end. */
export type Received =
  | { type: "messages"; batch: Batch }
  | { type: "end"; reason: EndReason | undefined };

/** Answers of {@link Session.send} that are not the number of a record. */
export const FULL = 0;
export const TOO_LARGE = -1;
export const CLOSED = -2;

// The phases of a connection: SPEC.md, section 13.
export const DETACHED = 0;
export const GREETING_OWED = 1;
export const HELLO_SENT = 2;
export const ATTACHED = 3;
/** A server's, with which a connection counts as attached. */
export const WELCOME_OWED = 4;

const OPEN = 0;
const CLOSING = 1;
const FINISHED = 2;
const OVER = 3;

interface CloseFrame {
  within: number;
  code: number;
  reason: string;
}

/**
 * A session of `unstall.v1` as a value: no I/O, no clock, no randomness. The caller brings the time, in
 * milliseconds, and the random bytes. This is the client's side; the tests have the server's in a subclass.
 *
 * After any call: {@link events} has what happened, {@link transmit} gives packets until there is none, and
 * {@link timeout} says when to call {@link handleTimeout}.
 */
export class Session {
  readonly config: limits.Config;
  protected readonly id: Uint8Array;
  protected token: Uint8Array;
  protected readonly inbox: Inbox;
  protected readonly outbox: Outbox;
  protected epoch: bigint | number = 0n;
  protected peerLargest: number | undefined;
  protected life: number;
  generation = 0;
  protected phase = DETACHED;
  #state = OPEN;
  #reason: EndReason | undefined;
  /** What this side's CLOSE says, and what the peer's said. */
  #close: CloseFrame | undefined;
  #peerClose: { code: number; reason: string } | undefined;
  #closeSent = false;
  #endSent = false;
  #peerEnded = false;
  #endTold = false;
  #farewell: { code: number; reason: string } | undefined;
  /** Credit from the peer; the value that the last BLOCKED on this connection named. */
  #credit = 0;
  #blockedTold = -1;
  /** The cost of the message that was refused last for lack of room. */
  #wanted: number | undefined;
  readonly #acks: Acks;
  #pong: bigint | number | undefined;
  #pingOwed = false;
  #pingNumber = 0;
  #pingSent: number | undefined;
  readonly #timers = new Timers();
  /** What happened, in order. The caller empties it. */
  readonly events: CoreEvent[] = [];
  readonly counters = { messagesSent: 0, replayed: 0, packetsSent: 0, packetsReceived: 0 };

  /** `id` and `token` are 16 bytes each from a cryptographic generator, drawn anew for each session. */
  constructor(config: Partial<limits.Config>, id: Uint8Array, token: Uint8Array) {
    this.config = limits.settled(config);
    this.id = id;
    this.token = token;
    this.#acks = new Acks(this.config.acknowledgeCost);
    this.inbox = new Inbox(this.config);
    this.outbox = new Outbox(this.config.replay);
    this.life = this.config.expiry;
  }

  // Sending.

  /** Accepts a message: the number of its last record, or {@link FULL}, {@link TOO_LARGE}, {@link CLOSED}. */
  send(message: Message): number {
    if (this.#state !== OPEN) return CLOSED;
    let seq = 0;
    let size = message.length;
    if (typeof message === "string") {
      seq = this.outbox.pushShort(message);
      if (seq === 0) {
        const bytes = utf8(message);
        size = bytes.length;
        const refused = this.#refuses(size);
        if (refused !== undefined) return refused;
        seq = this.outbox.push(1, bytes);
      }
    } else {
      const refused = this.#refuses(size);
      if (refused !== undefined) return refused;
      seq = this.outbox.push(0, message);
    }
    if (seq > 0) this.counters.messagesSent += 1;
    else this.#wanted = limits.messageCost(size);
    return seq;
  }

  /** The largest message that can be sent now. */
  get largestToSend(): number {
    const own = Math.max(this.config.largestMessage, limits.MIN_LARGEST_MESSAGE);
    return Math.min(this.peerLargest ?? limits.MIN_LARGEST_MESSAGE, own);
  }

  #refuses(size: number): number | undefined {
    if (size <= this.largestToSend) return undefined;
    if (this.peerLargest === undefined && size <= this.config.largestMessage) {
      this.#wanted = limits.messageCost(size);
      return FULL;
    }
    return TOO_LARGE;
  }

  protected checkWritable(): void {
    if (this.#wanted === undefined || this.peerLargest === undefined) return;
    if (this.#wanted <= this.outbox.room) {
      this.#wanted = undefined;
      this.events.push({ type: "writable" });
    }
  }

  /** How many complete packets wait to be sent. */
  get fullPackets(): number {
    return this.outbox.pending;
  }

  /** The last record that was accepted, and the last that is acknowledged. */
  get accepted(): number {
    return this.outbox.accepted;
  }

  get acknowledged(): number {
    return this.outbox.acked;
  }

  /** Sends PING. An older one that is not answered is forgotten. */
  ping(): void {
    this.#pingOwed = true;
  }

  // Receiving.

  /** The next thing for the application. It has not taken it yet: see {@link taken}. */
  receive(): Received | undefined {
    const batch = this.inbox.pop();
    if (batch) return { type: "messages", batch };
    if (this.#endTold || !(this.#peerClose || this.#state === OVER)) return undefined;
    this.#endTold = true;
    return { type: "end", reason: this.#reason?.type === "closed" ? undefined : this.#reason };
  }

  /** The application has taken all messages up to there. */
  taken(now: number, position: Position): void {
    this.inbox.take(position);
    if (!this.config.acknowledgeByHand) this.#acknowledge(now, this.inbox.taken);
  }

  /** The application has processed all messages up to there. Only needed with `acknowledgeByHand`. */
  acknowledge(now: number, position: Position): void {
    this.inbox.take(position);
    this.#acknowledge(now, position);
  }

  #acknowledge(now: number, position: Position): void {
    if (this.#state === OVER) return;
    if (position.seq > this.#acks.ready.seq) this.#acks.ready = position;
    if (this.#acks.isOwed) this.#timers.start(ACKNOWLEDGE, now + limits.ACK_DELAY);
    this.#checkFinished();
  }

  /** Acknowledges what there is without delay: for pages whose timers do not run in time. */
  hurryAcknowledgement(): void {
    this.#acks.urgent = true;
  }

  protected tellAck(): number {
    this.#timers.stop(ACKNOWLEDGE);
    return this.#acks.tell();
  }

  // Connections.

  /** There is a connection: its generation, or 0 if the session wants none. */
  attach(now: number): number {
    if (!this.wantsConnection) return 0;
    this.newConnection(GREETING_OWED, this.generation + 1);
    this.#timers.set(HANDSHAKE, now + limits.HANDSHAKE_TIMEOUT);
    return this.generation;
  }

  protected newConnection(phase: number, generation: number): void {
    this.phase = phase;
    this.generation = generation;
    this.#closeSent = this.#endSent = false;
    this.#pong = undefined;
  }

  isCurrent(generation: number): boolean {
    return this.phase !== DETACHED && this.generation === generation;
  }

  get isAttached(): boolean {
    return this.phase >= ATTACHED;
  }

  /** The connection is lost, or closed. Without effect when a newer one has replaced it. */
  detach(now: number, generation: number): void {
    if (!this.isCurrent(generation)) return;
    this.newConnection(DETACHED, generation);
    this.#timers.stop(HANDSHAKE);
    this.#farewell = undefined;
    if (this.epoch && !this.isOver) this.#timers.start(EXPIRY, now + this.life);
    this.#forgetUnopened();
    this.#restIfOver();
  }

  /** After the resume exchange: goes on after what the peer has received. */
  protected continueFrom(received: number, acked: number, credit: bigint): number {
    this.#timers.stop(EXPIRY);
    this.#blockedTold = -1;
    this.#raise(credit);
    const replayed = this.outbox.rewind(received);
    this.counters.replayed += replayed;
    this.#handleAck(acked);
    this.checkWritable();
    return replayed;
  }

  #raise(credit: bigint | number): void {
    this.#credit = Math.max(this.#credit, Number(credit));
  }

  #handleWelcome(packet: Packet): void {
    type Welcome = [number, Uint8Array, ...bigint[]];
    const [, token, epoch, generation, received, acked, credit, largest, life] = packet as Welcome;
    if (this.phase !== HELLO_SENT) throw new Violation(wire.UNEXPECTED);
    const first = !this.epoch;
    if (
      Number(generation) !== this.generation ||
      (first ? credit! < limits.MIN_WINDOW : epoch !== this.epoch)
    ) {
      throw new Violation(wire.INCONSISTENT);
    }
    this.outbox.checkResume(Number(received), Number(acked));
    this.epoch = epoch!;
    this.peerLargest ??= Number(largest);
    this.life = Math.min(this.config.expiry, Number(life));
    this.token = token;
    this.phase = ATTACHED;
    this.#timers.stop(HANDSHAKE);
    const replayed = this.continueFrom(Number(received), Number(acked), credit!);
    this.#acks.confirm = true;
    this.events.push(
      first ? { type: "opened" } : { type: "resumed", generation: this.generation, replayed },
    );
  }

  #handleReject(now: number, [, reason, retryAfter]: Packet): Refusal {
    if (this.phase !== HELLO_SENT) throw new Violation(wire.UNEXPECTED);
    const rejection = reason as number;
    const isFull = rejection === REJECTED_FULL;
    if (!isFull || this.#state === FINISHED) this.end({ type: "rejected", rejection });
    this.detach(now, this.generation);
    return { type: "rejected", rejection, retryAfter: isFull ? Number(retryAfter) : 0 };
  }

  // Packets that arrive.

  /** A packet came on that connection: one binary message. Its messages are views of it. */
  handlePacket(now: number, generation: number, bytes: Uint8Array): Refusal | undefined {
    return this.#handle(now, generation, () => {
      const packet = wire.decode(bytes);
      const [kind, first] = packet;
      if (kind >= 0x80) return undefined;
      if (kind === wire.WELCOME) return this.#handleWelcome(packet);
      if (kind === wire.REJECT) return this.#handleReject(now, packet);
      if (this.phase !== ATTACHED) throw new Violation(wire.UNEXPECTED);
      this.confirmToken();
      if (kind === wire.DATA) return this.inbox.accept(bytes, Number(first));
      return this.handleAttached(now, packet);
    });
  }

  /** A text message came on that connection. No packet is one. */
  handleText(now: number, generation: number): Refusal | undefined {
    return this.#handle(now, generation, () => {
      throw wire.malformed();
    });
  }

  #handle(
    now: number,
    generation: number,
    handle: () => Refusal | undefined | void,
  ): Refusal | undefined {
    if (!this.isCurrent(generation)) return { type: "superseded" };
    // Nothing that a peer sends after the end matters, well-formed or not.
    if (this.#state === OVER || this.#peerEnded) return undefined;
    this.counters.packetsReceived += 1;
    try {
      return handle() ?? undefined;
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      const { code } = error;
      if (code === wire.SEQUENCE_GAP) this.detach(now, generation);
      else this.end({ type: "protocol", error: code }, code);
      return { type: "protocol", error: code };
    }
  }

  /** The server's: its client has the token that it was offered. */
  protected confirmToken(): void {}

  protected handleAttached(now: number, packet: Packet): void {
    const [kind, field, reason] = packet;
    const number = Number(field);
    switch (kind) {
      case wire.ACK:
        return this.#handleAck(number);
      case wire.CREDIT:
        return this.#raise(number);
      case wire.BLOCKED:
        return this.inbox.peerBlocked(number);
      case wire.PING:
        this.#pong = field as bigint;
        return;
      case wire.PONG:
        if (this.#pingSent !== undefined && number === this.#pingNumber) {
          this.events.push({ type: "pong", roundTrip: now - this.#pingSent });
          this.#pingSent = undefined;
        }
        return;
      case wire.CLOSE:
        return this.#handleClose(now, packet);
      case wire.END:
        if (this.#state !== FINISHED) throw new Violation(wire.UNEXPECTED);
        this.#peerEnded = true;
        return this.#restIfOver();
      case wire.ABORT:
        return this.end({ type: "aborted by peer", code: number, reason: reason as string });
      case wire.GOAWAY: {
        const within = Math.min(number, limits.MAX_GO_AWAY);
        this.events.push({ type: "go away", within, reason: reason as string });
        return;
      }
      default:
        throw new Violation(wire.UNEXPECTED);
    }
  }

  #handleAck(seq: number): void {
    this.outbox.acknowledge(seq);
    this.checkWritable();
    this.#checkFinished();
  }

  // Ending: SPEC.md, section 11.

  /** Closes the session once everything is delivered, both ways; or ends it after `within`. */
  close(now: number, code: number, reason: string, within: number): void {
    if (this.#state === OPEN) {
      this.#state = CLOSING;
      this.#close = { within: limits.between(within, 0, limits.MAX_MILLIS), code, reason };
      this.#timers.set(CLOSE, now + within);
      this.#forgetUnopened();
    } else if (this.#state !== OVER && !this.#peerEnded) {
      this.#timers.shorten(CLOSE, now + within);
    }
  }

  /** Ends the session at once, and tells the peer if there is a connection. */
  abort(reason: string): void {
    this.end({ type: "aborted", reason }, wire.APPLICATION, reason);
  }

  /** The messages that were accepted and not acknowledged: once, and only after the session has ended. */
  undelivered(): Undelivered[] {
    return this.#state === OVER ? this.outbox.takeUndelivered() : [];
  }

  /** Whether nothing is left to send or to wait for. */
  get isOver(): boolean {
    if (this.#state === OVER) return this.#farewell === undefined;
    return this.#state === FINISHED && this.#peerEnded && (this.#endSent || !this.isAttached);
  }

  /** Whether a server has accepted it. */
  get wasOpened(): boolean {
    return this.epoch !== 0n;
  }

  /** Why it has ended, if it has. */
  get endReason(): EndReason | undefined {
    return this.#reason;
  }

  /** The code of the peer's CLOSE, once that has come. */
  get peerCloseCode(): number | undefined {
    return this.#peerClose?.code;
  }

  /** The last record received, and the cost of what was received and not taken. */
  get received(): number {
    return this.inbox.received.seq;
  }

  get untaken(): number {
    return this.inbox.untaken;
  }

  /** Whether it has ended, well or not, and only a farewell may be left. */
  get hasEnded(): boolean {
    return this.#state === OVER;
  }

  get wantsConnection(): boolean {
    return (
      this.#state === OPEN || this.#state === CLOSING || (this.#state === FINISHED && !this.#peerEnded)
    );
  }

  #handleClose(now: number, packet: Packet): void {
    const [, lastField, deadline, codeField, reasonField] = packet;
    const last = Number(lastField);
    const received = this.inbox.received.seq;
    if (last > received) throw new Violation(wire.SEQUENCE_GAP);
    if (last < received || this.inbox.hasPartial) {
      throw new Violation(wire.UNEXPECTED);
    }
    const code = codeField as number;
    const reason = reasonField as string;
    if (!this.#peerClose && (this.#state === OPEN || this.#state === CLOSING)) {
      this.#peerClose = { code, reason };
      this.inbox.last = last;
    }
    if (this.#state === OPEN) {
      this.#state = CLOSING;
      const within = Math.min(Number(deadline), limits.MAX_CLOSE);
      this.#close = { within, code, reason };
      this.#timers.set(CLOSE, now + within);
      this.events.push({ type: "closing", code, reason });
    }
    this.#checkFinished();
  }

  #checkFinished(): void {
    if (this.#state !== CLOSING || !this.#peerClose || this.inbox.last !== this.#acks.ready.seq) return;
    // No more messages will come, so the acknowledgement need not wait for them.
    this.#acks.urgent = true;
    if (!this.outbox.isDelivered) return;
    this.#state = FINISHED;
    this.#reason = { type: "closed", ...this.#peerClose };
    this.#timers.stop(ACKNOWLEDGE);
    this.events.push({ type: "ended", reason: this.#reason });
  }

  /** Completes a close at once when no server knows of the session, and nothing is to be delivered. */
  #forgetUnopened(): void {
    if (this.#state !== CLOSING || this.epoch || this.phase !== DETACHED || !this.outbox.isDelivered)
      return;
    const { code, reason } = this.#close!;
    this.end({ type: "closed", code, reason });
  }

  /** The session ends for this reason. Without effect when it has ended already. */
  protected end(reason: EndReason, code?: number, words = ""): void {
    if (this.isOver || this.#state === OVER) return;
    if (this.#state !== FINISHED) {
      this.#reason = reason;
      this.events.push({ type: "ended", reason });
    }
    this.#timers.stopAll();
    this.inbox.dropPartial();
    this.#state = OVER;
    if (code !== undefined && this.isAttached) this.#farewell = { code, reason: words };
  }

  #restIfOver(): void {
    if (this.isOver) this.#timers.stopAll();
  }

  // Time.

  /** When to call {@link handleTimeout} next; `Infinity`: never. */
  get timeout(): number {
    return this.#timers.next;
  }

  /** The time has passed. Calling it too early does no harm. */
  handleTimeout(now: number): void {
    for (;;) {
      const timer = this.#timers.fired(now);
      if (timer === undefined) return;
      if (timer === ACKNOWLEDGE) this.#acks.urgent = true;
      else if (timer === HANDSHAKE) {
        const { generation } = this;
        this.detach(now, generation);
        this.events.push({ type: "handshake timed out", generation });
      } else if (timer === EXPIRY) this.end({ type: "expired" });
      else {
        const finished = this.#state === FINISHED;
        this.end({ type: "close timed out" }, finished ? undefined : wire.CLOSE_TIMEOUT);
      }
    }
  }

  // What is sent next: SPEC.md, section 13.

  /** The next packet to send on that connection, as one binary message; `onlyFull`: if one is complete. */
  transmit(now: number, generation: number, onlyFull = false): Uint8Array | undefined {
    if (!this.isCurrent(generation) || (onlyFull && this.outbox.pending === 0)) return undefined;
    const packet = this.#next(now);
    if (packet === undefined) return undefined;
    this.counters.packetsSent += 1;
    return packet instanceof Uint8Array ? packet : wire.encode(packet);
  }

  #next(now: number): Packet | Uint8Array | undefined {
    if (this.phase === WELCOME_OWED) return this.greeting();
    if (this.phase === GREETING_OWED) return this.#state === OVER ? undefined : this.greeting();
    if (this.phase !== ATTACHED) return undefined;
    if (this.#state === OVER) {
      const farewell = this.#farewell;
      this.#farewell = undefined;
      return farewell && [wire.ABORT, farewell.code, farewell.reason];
    }
    return this.nextSign(now) ?? this.#nextOfStream();
  }

  protected greeting(): Packet {
    this.phase = HELLO_SENT;
    const { id, token, epoch } = this;
    return [wire.HELLO, id, token, epoch, ...this.positions(this.#acks.ready.seq)];
  }

  /** The fields that HELLO and WELCOME share. */
  protected positions(acked: number): number[] {
    const largest = Math.max(this.config.largestMessage, limits.MIN_LARGEST_MESSAGE);
    return [this.generation, this.inbox.received.seq, acked, this.inbox.renew(), largest];
  }

  protected nextSign(now: number): Packet | undefined {
    if (this.#pong !== undefined) {
      const number = this.#pong;
      this.#pong = undefined;
      return [wire.PONG, number];
    }
    if (this.#pingOwed) {
      this.#pingOwed = false;
      this.#pingSent = now;
      this.#pingNumber += 1;
      return [wire.PING, this.#pingNumber];
    }
    return undefined;
  }

  #nextOfStream(): Packet | Uint8Array | undefined {
    const creditDue = this.inbox.isCreditDue;
    const data = this.#nextOfData();
    if (this.#acks.isDue || (this.#acks.isOwed && (creditDue || data !== undefined))) {
      return [wire.ACK, this.tellAck()];
    }
    if (creditDue) return [wire.CREDIT, this.inbox.renew()];
    switch (data) {
      case wire.DATA:
        return this.outbox.transmit();
      case wire.BLOCKED:
        this.#blockedTold = this.#credit;
        return [wire.BLOCKED, this.#credit];
      case wire.CLOSE: {
        this.#closeSent = true;
        const { within, code, reason } = this.#close!;
        return [wire.CLOSE, this.outbox.accepted, within, code, reason];
      }
      case wire.END:
        this.#endSent = true;
        this.#restIfOver();
        return [wire.END];
      default:
        return undefined;
    }
  }

  #nextOfData(): number | undefined {
    const end = this.outbox.nextEnd;
    if (end > 0) {
      if (end <= this.#credit) return wire.DATA;
      return this.#blockedTold === this.#credit ? undefined : wire.BLOCKED;
    }
    if (!this.#close) return undefined;
    if (!this.#closeSent) return wire.CLOSE;
    return this.#state === FINISHED && !this.#endSent ? wire.END : undefined;
  }

  /** Whether messages wait for credit. */
  get waitsForCredit(): boolean {
    return this.isAttached && this.outbox.nextEnd > this.#credit;
  }

  get stats(): { kept: number; untaken: number; window: number; memory: number; duplicates: number } {
    return {
      kept: this.outbox.kept,
      untaken: this.inbox.untaken,
      window: this.inbox.window,
      memory: this.outbox.memory,
      duplicates: this.inbox.duplicates,
    };
  }
}
