import { type Carried, type ConnectionEvents, Connector, type Loss } from "../connection.ts";
import { hex } from "../core/topics/bytes.ts";
import { type CoreEvent, TopicsCore } from "../core/topics/client.ts";
import { LARGEST_MESSAGE, MIN_PUBLISH_WINDOW, SUBPROTOCOL } from "../core/topics/limits.ts";
import { NO_LOG } from "../core/topics/start.ts";
import { printable, UnstallError } from "../errors.ts";
import { deferred } from "../soon.ts";
import { checkedUrls } from "../upgrade.ts";
import type { TopicsEvents, TopicsOptions } from "./options.ts";
import { Publisher } from "./publisher.ts";
import { Tokens } from "./tokens.ts";

/** What may be published and have no answer, by default. */
const PUBLISH_WINDOW = 4 << 20;
/** How long a node that broke the protocol is left alone: the same would come again. */
const BROKEN_REST = 1_000;

const now = (): number => performance.now();

/** The core, and one connection after another that carries its packets. */
export class Keeper implements Carried {
  readonly protocols = [SUBPROTOCOL];
  readonly core: TopicsCore;
  readonly publisher: Publisher;
  readonly connector: Connector;
  readonly #tokens: Tokens;
  readonly #report: <Name extends keyof TopicsEvents>(name: Name, detail: TopicsEvents[Name]) => void;
  /** Those who read subscriptions look at what is there. */
  readonly readers = new Map<number, () => void>();
  readonly #addresses: number;
  /** The nodes that rejected the client for good, each with the token that it did not take. */
  readonly #rejectedBy = new Map<string, string>();
  readonly #hopeless = new Set<string>();
  #progressed = false;
  #pumping = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Why there is no further connection. */
  ended: UnstallError | undefined;
  readonly over = deferred<void>();

  constructor(
    urls: string | URL | readonly (string | URL)[],
    options: TopicsOptions,
    report: <Name extends keyof TopicsEvents>(name: Name, detail: TopicsEvents[Name]) => void,
  ) {
    this.#report = report;
    this.core = new TopicsCore(coreOptions(options));
    this.publisher = new Publisher(this.core, options.publishWindow ?? PUBLISH_WINDOW);
    this.#tokens = new Tokens(
      options.token,
      (token) => this.#renewed(token),
      (why) => this.#report("tokenfailed", { why }),
    );
    // The token is in HELLO, so the connection itself carries none.
    const token = () => this.#tokens.next().then(() => undefined);
    this.connector = new Connector(urls, this, { ...options, token });
    this.#addresses = new Set(checkedUrls(urls)).size;
  }

  // What the connector calls.

  opened(): void {
    this.#progressed = false;
    if (this.connector.protocol !== SUBPROTOCOL) {
      this.#drop(
        new UnstallError("peer", "the server does not speak topics: use the URL of a node", true),
      );
      return;
    }
    this.core.attach(now(), this.#tokens.last);
    this.publisher.hold(false);
    this.#wake();
    this.pump();
  }

  packet(bytes: Uint8Array): void {
    this.#handle(bytes);
  }

  text(text: string): void {
    this.#handle(text);
  }

  ping(): boolean {
    this.core.ping();
    // A PONG may come first. Neither waits for room.
    for (let urgent = 0; urgent < 2; urgent++) this.#send();
    this.later();
    return true;
  }

  writable(): void {
    this.pump();
  }

  lost(why: UnstallError): Loss {
    const progressed = this.#progressed;
    this.core.detach(now());
    this.#dispatch();
    this.#read();
    this.#schedule();
    const again = this.ended === undefined && this.#hopeless.size < this.#addresses;
    if (!again) this.#end(why);
    return { again, progressed };
  }

  gaveUp(why: UnstallError): void {
    this.#end(why);
  }

  report<Name extends keyof ConnectionEvents>(name: Name, detail: ConnectionEvents[Name]): void {
    this.#report(name, detail as TopicsEvents[Name]);
  }

  // Packets.

  #handle(data: Uint8Array | string): void {
    const error = this.core.handle(now(), data);
    this.#dispatch();
    this.#read();
    if (error) {
      this.#progressed = false;
      this.connector.rest(BROKEN_REST);
      this.#drop(new UnstallError("peer", `the node broke the protocol: ${error.message}`, true), 1002);
    } else if (this.core.closeCode !== undefined) {
      this.#drop(new UnstallError("lost", "the node gave the connection up", true));
    } else this.later();
  }

  #read(): void {
    for (const number of this.core.takeReadable()) {
      this.#progressed = true;
      this.readers.get(number)?.();
    }
  }

  /** Every subscription looks at how it stands. */
  #wake(): void {
    for (const look of [...this.readers.values()]) look();
  }

  #drop(why: UnstallError, code = 1000): void {
    this.#send();
    this.connector.drop(why, code);
  }

  /** Leaves this node: another one may do better. */
  leave(why: UnstallError): void {
    this.connector.drop(why);
  }

  /** Sends what there is to send, behind everything that is ready now. */
  later(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    queueMicrotask(() => {
      this.#pumping = false;
      this.pump();
    });
  }

  pump(): void {
    while (this.connector.hasRoom() && this.#send());
  }

  #send(): boolean {
    const packet = this.core.transmit(now());
    if (packet) this.connector.send(packet);
    return packet !== undefined;
  }

  /** Some messages must not be sent again after a time. */
  #schedule(): void {
    clearTimeout(this.#timer);
    const { deadline } = this.core;
    if (deadline === undefined || this.ended) return;
    const late = () => {
      this.core.expire(now());
      this.#dispatch();
      this.#schedule();
    };
    this.#timer = setTimeout(late, Math.min(Math.max(deadline - now(), 0), 2 ** 31 - 1));
  }

  // Events.

  #dispatch(): void {
    const events = this.core.takeEvents();
    for (const event of events) this.#tell(event);
    if (events.length === 0) return;
    this.publisher.answered();
    this.later();
  }

  #tell(event: CoreEvent): void {
    switch (event.type) {
      case "welcome": {
        const { log, name } = event.welcome;
        this.#hopeless.clear();
        this.#rejectedBy.clear();
        this.publisher.welcomed();
        this.#schedule();
        this.#report("welcomed", { log, node: printable(name) });
        break;
      }
      case "rejected":
        this.#rejected(event);
        break;
      case "goAway": {
        const { within, text } = event;
        this.#report("goaway", { within, text: printable(text) });
        this.connector.leave(within, new UnstallError("lost", "the node asked to go elsewhere", true));
        break;
      }
      case "published":
        this.#progressed = true;
        this.publisher.handle(event, false);
        break;
      case "refused":
        this.#refused(event);
        break;
      case "unknown":
        this.publisher.handle(event, false);
    }
  }

  #refused(fate: CoreEvent & { type: "refused" }): void {
    const renews = this.#tokens.areRenewed && fate.reason === "expired";
    if (renews) {
      this.publisher.hold(true);
      this.renew();
    }
    this.publisher.handle(fate, renews);
  }

  #rejected(event: CoreEvent & { type: "rejected" }): void {
    const { reason, retryAfter, text } = event;
    const { url } = this.connector;
    this.connector.rest(retryAfter);
    const { last } = this.#tokens;
    if (reason === "not allowed") {
      const isSame = this.#rejectedBy.get(url) === last;
      this.#rejectedBy.set(url, last);
      if (isSame || !this.#tokens.areRenewed) this.#hopeless.add(url);
    }
    const words = text && ` (${printable(text)})`;
    const why = `the node rejects the client: ${reason}${words}`;
    this.#drop(new UnstallError("rejected", why, reason !== "not allowed"));
  }

  // Tokens.

  /** The token has expired, and another one is not there yet. */
  get isRenewing(): boolean {
    return this.#tokens.isStale;
  }

  /** Asks the application for another token. Whether it can give one. */
  renew(): boolean {
    if (this.#tokens.areRenewed) this.#tokens.expired();
    return this.#tokens.areRenewed;
  }

  #renewed(token: string): void {
    this.core.setToken(token);
    this.publisher.hold(false);
    this.#wake();
    this.later();
  }

  // The end.

  /** Nothing more is sent or received. */
  stop(why: UnstallError): void {
    this.core.detach(now());
    this.#dispatch();
    this.connector.stop();
    this.#end(why);
  }

  #end(why: UnstallError): void {
    if (this.ended) return;
    this.ended = why;
    clearTimeout(this.#timer);
    this.#tokens.stop();
    this.publisher.end(why);
    this.over.resolve();
    this.#wake();
  }
}

function coreOptions(options: TopicsOptions) {
  const { publisher, publishWindow = MIN_PUBLISH_WINDOW, maxMessageBytes = LARGEST_MESSAGE } = options;
  const isPublisher =
    !publisher ||
    (/^[0-9a-f]{32}$/.test(publisher.id) && publisher.id !== NO_LOG && publisher.epoch > 0);
  if (!isPublisher)
    throw new UnstallError(
      "options",
      "a publisher has an id of 32 hexadecimal digits and an epoch above 0",
    );
  if (!(publishWindow > 0)) throw new UnstallError("options", "publishWindow is above 0 bytes");
  if (!(maxMessageBytes >= 65_536 && maxMessageBytes <= 2 ** 30))
    throw new UnstallError("options", "maxMessageBytes is from 65,536 to 1,073,741,824");
  const id = publisher?.id ?? hex(crypto.getRandomValues(new Uint8Array(16)));
  return { publisher: id, epoch: publisher?.epoch ?? 1, largestMessage: Math.floor(maxMessageBytes) };
}
