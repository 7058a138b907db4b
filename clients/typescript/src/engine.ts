import { type Carried, type ConnectionEvents, Connector, type Loss } from "./connection.ts";
import { MAX_PACKET, SUBPROTOCOL } from "./core/limits.ts";
import type { Undelivered } from "./core/outbox.ts";
import type { Message } from "./core/record.ts";
import * as core from "./core/session.ts";
import * as defaults from "./defaults.ts";
import { aborted, UnstallError } from "./errors.ts";
import type { Closed, SessionEvents } from "./events.ts";
import { Gap } from "./gap.ts";
import { coreConfig, type SessionOptions } from "./options.ts";
import { Returned, Senders, Watchers } from "./outgoing.ts";
import { isHidden } from "./page.ts";
import { Plain } from "./plain.ts";
import { type Position, Queue } from "./queue.ts";
import { closedWith, endError, isFollowed, isRefused } from "./reasons.ts";
import { deferred, rejected, soon } from "./soon.ts";

const clock = (): number => performance.now();
const random = () => crypto.getRandomValues(new Uint8Array(16));

/** Drives the protocol over one connection after another. {@link Session} is its face. */
export class Engine implements Carried {
  readonly options: SessionOptions;
  readonly #emit: <Name extends keyof SessionEvents>(name: Name, detail: SessionEvents[Name]) => void;
  readonly connector: Connector;
  readonly queue: Queue;
  readonly soon = soon(() => this.pump());
  core: core.Session;
  /** The number of the session, from 1. */
  number = 1;
  #generation = 0;
  plain: Plain | undefined;
  readonly #senders = new Senders();
  readonly #watchers = new Watchers();
  readonly #returned: Returned;
  readonly whenOpen = deferred<void>();
  readonly closed = deferred<Closed>();
  isOpen = false;
  hasEnded = false;
  /** Connections that ended before any session was open. */
  #refused = 0;
  /** The application closes: with this code, reason, and by then. */
  #closing: { code: number; reason: string; deadline: number; begun: boolean } | undefined;
  #aborted: UnstallError | undefined;
  #progress = "";
  #takenPart = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerAt = Number.POSITIVE_INFINITY;

  constructor(
    urls: string | URL | readonly (string | URL)[],
    options: SessionOptions,
    emit: <Name extends keyof SessionEvents>(name: Name, detail: SessionEvents[Name]) => void,
  ) {
    this.options = options;
    this.#emit = emit;
    this.core = this.#newCore();
    this.#returned = new Returned(2 * this.core.config.replay);
    this.queue = new Queue((all) => this.#taking(all));
    this.connector = new Connector(urls, this, options);
  }

  #newCore(): core.Session {
    return new core.Session(coreConfig(this.options), random(), random());
  }

  // Sending.

  /** Whether the message was accepted; else why not. */
  trySend(message: Message): boolean {
    if (this.hasEnded || this.#closing) throw this.#closedError();
    return this.#senders.isEmpty && this.#accept(message);
  }

  #accept(message: Message): boolean {
    if (this.plain) {
      if (!this.plain.send(message)) return false;
      this.soon();
      return true;
    }
    const { core: session } = this;
    const seq = session.send(message);
    if (seq > 0) {
      // Nothing is gained by letting a complete packet wait for more messages.
      if (session.fullPackets > 0 && this.#generation > 0) this.#transmit(true);
      this.soon();
      return true;
    }
    if (seq === core.TOO_LARGE) {
      throw new UnstallError(
        "too-large",
        `the message is larger than the ${session.largestToSend} bytes that the server accepts`,
      );
    }
    if (seq === core.CLOSED && !session.hasEnded && !this.#isRestarting()) {
      throw new UnstallError("closed", "the server closes the session: nothing more can be sent");
    }
    return false;
  }

  /** Whether a session that cannot accept any more is followed by another one. */
  #isRestarting(): boolean {
    const code = this.core.peerCloseCode;
    return code !== undefined && isFollowed(code) && this.#mayRestart();
  }

  send(message: Message, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return rejected(aborted(signal));
    try {
      if (this.trySend(message)) return SENT;
    } catch (error) {
      return rejected(error);
    }
    return this.#senders.add(message, signal);
  }

  delivered(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return rejected(aborted(signal));
    if (this.plain) {
      return rejected(new UnstallError("plain", "a plain connection does not tell what was delivered"));
    }
    const { accepted, acknowledged } = this.core;
    if (acknowledged >= accepted && !this.hasEnded) return SENT;
    if (this.hasEnded) return acknowledged >= accepted ? SENT : rejected(this.#closedError());
    this.soon();
    return this.#watchers.add(accepted, signal);
  }

  takeUndelivered(): Undelivered[] {
    return this.#returned.take();
  }

  #closedError(): UnstallError {
    return this.#aborted ?? new UnstallError("closed", "the session was closed before");
  }

  // Receiving.

  /** The application has begun to take what came together, or has taken all of it. */
  #taking(all: boolean): void {
    if (!all) {
      this.#takenPart ||= clock();
      this.#arm(this.#takenPart + 20);
      return;
    }
    this.#tellTaken(clock());
    this.soon();
  }

  #tellTaken(now: number): void {
    this.#takenPart = 0;
    const position = this.queue.position;
    if (position?.session === this.number) this.core.taken(now, position);
  }

  acknowledge(position: Position | undefined): void {
    if (position?.session !== this.number) return;
    this.core.acknowledge(clock(), position);
    this.soon();
  }

  // The connection.

  get protocols(): readonly string[] {
    const { session, protocols = [] } = this.options;
    return session === "never" || this.#plainNext ? protocols : [SUBPROTOCOL, ...protocols];
  }

  get largest(): number {
    const { session, largestMessage = defaults.LARGEST } = this.options;
    return session === "offered" || session === "never" ? largestMessage : MAX_PACKET;
  }

  report<Name extends keyof ConnectionEvents>(name: Name, detail: ConnectionEvents[Name]): void {
    this.#emit(name, detail as SessionEvents[Name]);
    if (name !== "attemptfailed") return;
    const { why } = detail as ConnectionEvents["attemptfailed"];
    if (this.options.session === "offered" && !this.core.wasOpened && why.code === "connect") {
      this.#plainNext = !this.#plainNext;
      if (this.#plainNext) {
        this.connector.again();
        return;
      }
    }
    this.#countRefusal(why);
  }

  /**
   * A WebSocket does not open when a server selects none of the subprotocols, and browsers do not say why. So
   * the attempt after a failed one is plain, if that is allowed and no server has shown that it has sessions.
   * A server that agreed to a session and is slow is no reason for that.
   */
  #plainNext = false;

  /** `connect` tries each server once, and no more. */
  #countRefusal(why: UnstallError): void {
    this.#refused += 1;
    if (!this.isOpen) this.onRefused?.(why, this.#refused);
  }

  /** Called when an attempt has failed before anything was open. */
  onRefused: ((why: UnstallError, times: number) => void) | undefined;

  /** A connection is open. */
  opened(): void {
    this.#plainNext = false;
    if (this.connector.protocol === SUBPROTOCOL) {
      if (this.plain) this.#leavePlain();
      this.#progress = this.#moved();
      this.#generation = this.core.attach(clock());
      this.pump();
      return;
    }
    if (this.options.session !== "offered" && this.options.session !== "never") {
      const words = "the server selected another subprotocol than unstall.v1";
      this.fail(new UnstallError("connect", words));
      return;
    }
    if (!this.plain) this.#goPlain();
    this.plain!.opened();
    this.#isOpenNow(false);
    this.pump();
  }

  #isOpenNow(isSession: boolean): void {
    this.isOpen = true;
    this.whenOpen.resolve();
    this.#emit("open", { isSession });
  }

  /** The server has no sessions. What waits for one goes as it is; a session that was open is lost. */
  #goPlain(): void {
    const lost = this.core.wasOpened;
    this.core.abort("");
    this.core.events.length = 0;
    const rest = this.core.undelivered();
    const { replay, largestWindow } = this.core.config;
    this.plain = new Plain(this.connector, this.queue, replay, largestWindow);
    if (lost) {
      const why = new UnstallError("session", "the server no longer offers sessions", true);
      this.#giveBack(rest, why);
      return;
    }
    for (const { data } of rest) this.plain.send(data);
  }

  #leavePlain(): void {
    const rest = this.plain!.takeUnsent();
    this.plain!.markDropped();
    this.plain!.opened();
    this.plain = undefined;
    this.#restart();
    for (const message of rest) this.core.send(message);
  }

  packet(bytes: Uint8Array): void {
    if (this.plain) this.plain.received(bytes);
    else this.#handled(this.core.handlePacket(clock(), this.#generation, bytes));
  }

  text(text: string): void {
    if (this.plain) this.plain.received(text);
    else this.#handled(this.core.handleText(clock(), this.#generation));
  }

  #handled(refusal: core.Refusal | undefined): void {
    if (refusal?.type === "rejected" && refusal.retryAfter > 0) this.connector.rest(refusal.retryAfter);
    this.pump();
    if (refusal) this.connector.drop(isRefused(refusal), refusal.type === "protocol" ? 1002 : 1000);
  }

  ping(): boolean {
    if (this.plain) return false;
    this.core.ping();
    this.pump();
    return true;
  }

  lost(why: UnstallError): Loss {
    const progressed = this.#progress !== this.#moved() && !this.plain;
    if (this.plain) {
      this.plain.lost(why);
      if (why.closeCode === 1000 || !why.retryable)
        this.#finish(why.closeCode === 1000 ? undefined : why);
      return { again: !this.hasEnded, progressed };
    }
    this.core.detach(clock(), this.#generation);
    this.#generation = 0;
    if (!this.isOpen) this.#countRefusal(why);
    this.#after();
    const again = !this.hasEnded && (why.retryable || this.core.wasOpened);
    return { again, progressed };
  }

  #moved(): string {
    const { acknowledged, received } = this.core;
    return `${this.number} ${acknowledged} ${received}`;
  }

  gaveUp(why: UnstallError): void {
    this.fail(why);
  }

  writable(): void {
    this.pump();
  }

  // What follows from anything that happened.

  /** Sends what can be sent, tells what happened, and waits for the next moment. */
  pump(): void {
    if (this.hasEnded) return;
    if (this.plain) {
      this.plain.pump();
      this.#senders.serve((message) => this.#accept(message));
      this.plain.pump();
      this.#closeWhenDue();
      return;
    }
    const now = clock();
    if (this.#takenPart > 0) this.#tellTaken(now);
    if (isHidden()) this.core.hurryAcknowledgement();
    this.core.handleTimeout(now);
    this.#transmit();
    this.#after();
  }

  #transmit(onlyFull = false): void {
    while (this.#generation > 0 && this.connector.hasRoom()) {
      const packet = this.core.transmit(clock(), this.#generation, onlyFull);
      if (!packet) return;
      this.connector.send(packet);
    }
  }

  #after(): void {
    if (this.hasEnded) return;
    const events = this.core.events.splice(0);
    for (const event of events) this.#tell(event);
    this.#deliver();
    this.#watchers.settle(this.core.acknowledged);
    this.#senders.serve((message) => this.#accept(message));
    this.#closeWhenDue();
    if (this.core.isOver) this.#over();
    else this.#arm(this.core.timeout);
  }

  #tell(event: core.CoreEvent): void {
    switch (event.type) {
      case "opened":
        this.#isOpenNow(true);
        return;
      case "resumed":
        this.#emit("resumed", { replayed: event.replayed });
        return;
      case "handshake timed out": {
        const words = "the server agreed to a session but did not answer in time";
        this.connector.drop(new UnstallError("connect", words, true));
        return;
      }
      case "go away":
        this.#emit("goaway", { within: event.within, reason: event.reason });
        this.connector.leave(
          event.within,
          new UnstallError("lost", "the server asked to connect again", true),
        );
        return;
      case "closing":
        this.#emit("closing", { code: event.code, reason: event.reason });
        return;
      case "ended":
        if (event.reason.type === "closed") this.#closedInOrder(event.reason.code, event.reason.reason);
        return;
    }
  }

  /** Everything is delivered both ways. The protocol may still have to tell the server so. */
  #closedInOrder(code: number, reason: string): void {
    if (!this.#closing && isFollowed(code) && this.#mayRestart()) return;
    const error = this.#closing || code === 1000 || code === 1001 ? undefined : closedWith(code, reason);
    this.#conclude({ clean: true, code, reason, error });
  }

  #mayRestart(): boolean {
    return (
      this.options.freshSession !== false &&
      this.options.reconnect !== false &&
      !this.#closing &&
      !this.#aborted
    );
  }

  #deliver(): void {
    for (;;) {
      const received = this.core.receive();
      if (!received) return;
      if (received.type === "messages")
        this.queue.pushBatch(this.number, received.batch, received.batch.cost);
    }
  }

  /** The session is over for the protocol. */
  #over(): void {
    const reason = this.core.endReason!;
    const why = endError(reason);
    if (this.connector.isOpen && this.#generation > 0) {
      // Comes back here by way of `lost`.
      this.connector.drop(
        why ?? new UnstallError("lost", "the session has ended", true),
        reason.type === "protocol" ? 1002 : 1000,
      );
      return;
    }
    if (reason.type === "closed" && (this.closedResult || !this.#mayRestart())) {
      this.connector.stop();
      this.#end(undefined);
      return;
    }
    const lost = why ?? new UnstallError("session", "the server went away and closed the session", true);
    if (this.core.wasOpened && !this.#aborted) this.#giveBack(this.core.undelivered(), lost);
    if (this.#mayRestart()) {
      this.#restart();
      return;
    }
    this.#store(this.core.undelivered());
    this.#finish(this.#aborted ?? lost);
  }

  #restart(): void {
    this.core = this.#newCore();
    this.number += 1;
    this.#generation = 0;
    this.soon();
  }

  #giveBack(rest: Undelivered[], why: UnstallError): void {
    this.#emit("sessionlost", { why, undelivered: rest.length });
    this.#store(rest);
    this.#watchers.refuse(why);
    this.queue.bound(2 * this.core.config.window);
    this.queue.pushOne(new Gap("session lost", why));
  }

  #store(rest: Undelivered[]): void {
    const messages = this.#returned.add(rest);
    if (messages > 0) this.#emit("undelivereddropped", { messages });
  }

  // The end.

  closedResult: Closed | undefined;

  close(code: number, reason: string, within: number): Promise<Closed> {
    if (this.hasEnded || this.closedResult) return this.closed.promise;
    const deadline = clock() + within;
    this.#closing ??= { code, reason, deadline, begun: false };
    this.#closing.deadline = Math.min(this.#closing.deadline, deadline);
    this.pump();
    return this.closed.promise;
  }

  /** Begins the close when everything was accepted, or a little before the deadline. */
  #closeWhenDue(): void {
    const closing = this.#closing;
    if (!closing || this.hasEnded) return;
    const now = clock();
    const left = closing.deadline - now;
    if (this.plain) {
      if (left > 0 && (!this.plain.isIdle || !this.#senders.isEmpty) && this.connector.isOpen) {
        this.#arm(closing.deadline);
        return;
      }
      this.connector.stop(closing.code);
      this.#finish(undefined, closing);
      return;
    }
    if (!closing.begun) {
      if (left > 100 && !this.#senders.isEmpty) {
        this.#arm(closing.deadline - 100);
        return;
      }
      closing.begun = true;
      this.core.close(now, closing.code, closing.reason, Math.max(left, 0));
      this.soon();
    }
    this.#abortIfAbandoned();
  }

  /** The application has closed and does not receive any more: what it did not take goes back. */
  #abortIfAbandoned(): void {
    const { core: session, queue } = this;
    const isLeft = session.untaken > 0 && !queue.isRead && session.acknowledged === session.accepted;
    if (!isLeft || !session.isAttached) return;
    session.hurryAcknowledgement();
    this.#transmit();
    session.abort("its application closed before it received every message");
    this.soon();
  }

  abort(reason: string, why?: UnstallError): void {
    if (this.hasEnded) return;
    this.#aborted = why ?? new UnstallError("closed", "the application ended the session at once");
    this.core.abort(reason);
    if (this.plain) this.#finish(this.#aborted);
    else this.pump();
    if (!this.hasEnded) this.#over();
  }

  /** There is no way to go on. */
  fail(why: UnstallError): void {
    if (this.hasEnded) return;
    this.#aborted = why;
    this.core.abort(why.message);
    this.core.events.length = 0;
    this.#transmit();
    this.connector.stop(1000);
    if (this.core.wasOpened && !this.plain) this.#giveBack(this.core.undelivered(), why);
    else this.#store(this.core.undelivered());
    this.#finish(why);
  }

  #finish(error: UnstallError | undefined, closing?: { code: number; reason: string }): void {
    if (this.plain) {
      this.plain.markDropped();
      this.#store(this.plain.takeUnsent().map((data) => ({ data, fate: "not sent" as const })));
    }
    this.#conclude({ clean: false, code: closing?.code ?? 1006, reason: closing?.reason ?? "", error });
    this.connector.stop(1000);
    this.#end(error);
  }

  /** The application learns how it ended. The protocol may go on for a while. */
  #conclude(result: Closed): void {
    if (this.closedResult) return;
    this.closedResult = result;
    this.#deliver();
    this.queue.end(result.error);
    const error = result.error ?? this.#closedError();
    this.#watchers.settle(this.core.acknowledged);
    this.#watchers.refuse(error);
    this.#senders.refuse(error);
    this.whenOpen.reject(error);
    this.#emit("end", { why: result.error });
    this.closed.resolve(result);
  }

  #end(error: UnstallError | undefined): void {
    this.hasEnded = true;
    this.#aborted ??= error;
    clearTimeout(this.#timer);
    this.#timerAt = Number.POSITIVE_INFINITY;
  }

  /** Runs the pump at that moment, or before. */
  #arm(at: number): void {
    if (at >= this.#timerAt || this.hasEnded) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    const wait = Math.min(Math.max(at - clock(), 0), 0x7fffffff);
    this.#timer = setTimeout(() => {
      this.#timerAt = Number.POSITIVE_INFINITY;
      this.pump();
    }, wait);
  }
}

/** The answer to a message that was accepted: always the same, so that it costs nothing. */
const SENT: Promise<void> = Promise.resolve();
