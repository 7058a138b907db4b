import { type Config, DATA_HEADER, MAX_POSITION, RECORD_OVERHEAD } from "./limits.ts";
import * as wire from "./packet.ts";
import { malformed, Violation } from "./packet.ts";
import { type Message, Records } from "./record.ts";

/** The end of a record: its number, and its offset. */
export interface Position {
  readonly seq: number;
  readonly offset: number;
}

const START: Position = { seq: 0, offset: 0 };

/** Messages that arrived together, in order. */
export class Batch {
  readonly messages: Message[];
  readonly #start: Position;
  /** The sizes of text that is not ASCII, by the index of the message. Nothing if a message has several records. */
  readonly #sizes: Map<number, number> | undefined;
  readonly end: Position;

  constructor(messages: Message[], start: Position, end: Position, sizes?: Map<number, number>) {
    this.messages = messages;
    this.#start = start;
    this.end = end;
    this.#sizes = sizes;
  }

  /** What its messages cost together. */
  get cost(): number {
    return this.end.offset - this.#start.offset;
  }

  /** Where the first `count` messages end. */
  after(count: number): Position {
    if (count >= this.messages.length || !this.#sizes) return count > 0 ? this.end : this.#start;
    let { seq, offset } = this.#start;
    seq += count;
    for (let index = 0; index < count; index++) {
      offset += (this.#sizes.get(index) ?? this.messages[index]!.length) + RECORD_OVERHEAD;
    }
    return { seq, offset };
  }
}

/** A message whose last record has not arrived. The largest message bounds it. */
interface Partial {
  isText: boolean;
  /** Its bytes so far. It grows by doubling, so a long message is not copied for each record. */
  bytes: Uint8Array;
  length: number;
  cost: number;
  start: Position;
}

/** Received messages: whole, in order and each once; and the credit that the peer has. */
export class Inbox {
  readonly #largestWindow: number;
  readonly #largestMessage: number;
  window: number;
  #batches: Batch[] = [];
  #partial: Partial | undefined;
  received = START;
  taken = START;
  /** The offset up to which the peer may send. */
  granted: number;
  /** The credit that the peer has used up, as its last BLOCKED says. */
  #blocked: number | undefined;
  /** The peer's last record, once its CLOSE has named it. */
  last = MAX_POSITION;
  duplicates = 0;

  constructor(config: Config) {
    this.window = config.window;
    this.granted = config.window;
    this.#largestWindow = config.largestWindow;
    this.#largestMessage = config.largestMessage;
  }

  get hasPartial(): boolean {
    return this.#partial !== undefined;
  }

  dropPartial(): void {
    this.#partial = undefined;
  }

  /** The cost of what arrived and was not taken. */
  get untaken(): number {
    return this.received.offset - this.taken.offset;
  }

  /** Accepts the records of a DATA packet. Those that came before are dropped. */
  accept(packet: Uint8Array, first: number): void {
    const expected = this.received.seq + 1;
    if (first > expected) throw new Violation(wire.SEQUENCE_GAP);
    const records = new Records(packet, DATA_HEADER);
    for (let known = expected - first; known > 0 && records.next(); known--) this.duplicates += 1;
    // A view keeps its whole packet. What credit has not paid for, such as duplicates, must not be kept.
    const rest = records.at > DATA_HEADER ? new Records(packet.slice(records.at), 0) : records;
    this.#acceptNew(rest);
  }

  /** Collects whole messages up to the end or to one of several records, and checks them together. */
  #acceptNew(records: Records): void {
    let messages: Message[] = [];
    let sizes = new Map<number, number>();
    let total = 0;
    let mixed = false;
    const flush = () => {
      if (messages.length === 0) return;
      // A part of a long message is copied, and its packet is not to be kept for a few short ones.
      if (mixed) messages = messages.map((message) => message.slice());
      const end = this.#advance(messages.length, total);
      this.#batches.push(new Batch(messages, this.received, end, sizes));
      this.received = end;
      messages = [];
      sizes = new Map();
      total = 0;
    };
    while (records.next()) {
      if (records.continues || this.#partial) {
        mixed = true;
        flush();
        this.#acceptPart(records);
        continue;
      }
      if (records.length > this.#largestMessage) throw this.#tooLarge();
      const message = records.isText ? records.text() : records.payload();
      if (message === undefined) throw invalidText();
      if (message.length !== records.length) sizes.set(messages.length, records.length);
      messages.push(message);
      total += records.length + RECORD_OVERHEAD;
    }
    flush();
  }

  /** The end of that many more records, if credit, sequence numbers and CLOSE allow them. */
  #advance(records: number, cost: number): Position {
    const seq = this.received.seq + records;
    const offset = this.received.offset + cost;
    if (seq > this.last) throw new Violation(wire.UNEXPECTED);
    if (offset > MAX_POSITION) throw new Violation(wire.SEQUENCE_EXHAUSTED);
    if (offset > this.granted) {
      throw new Violation(wire.CREDIT_EXCEEDED);
    }
    return { seq, offset };
  }

  #acceptPart(records: Records): void {
    const cost = records.length + RECORD_OVERHEAD;
    const end = this.#advance(1, cost);
    const { isText, continues } = records;
    this.#partial ??= { isText, bytes: new Uint8Array(0), length: 0, cost: 0, start: this.received };
    const partial = this.#partial;
    if (partial.isText !== isText) throw malformed();
    const length = partial.length + records.length;
    if (length > this.#largestMessage) throw this.#tooLarge();
    if (length > partial.bytes.length) {
      const grown = new Uint8Array(continues ? Math.min(2 * length, this.#largestMessage) : length);
      grown.set(partial.bytes.subarray(0, partial.length));
      partial.bytes = grown;
    }
    partial.bytes.set(records.payload(), partial.length);
    partial.length = length;
    partial.cost += cost;
    this.received = end;
    if (continues) return;
    this.#partial = undefined;
    const spare = partial.bytes.length - length;
    const bytes =
      spare > length / 4 ? partial.bytes.slice(0, length) : partial.bytes.subarray(0, length);
    const message = Records.message(isText, [bytes]);
    if (message === undefined) throw invalidText();
    this.#batches.push(new Batch([message], partial.start, end));
  }

  #tooLarge(): Violation {
    return new Violation(wire.MESSAGE_TOO_LARGE);
  }

  /** The next messages for the application. */
  pop(): Batch | undefined {
    return this.#batches.shift();
  }

  /** The application has taken everything up to `position`. */
  take(position: Position): void {
    if (position.seq > this.taken.seq) this.taken = position;
    this.#growIfStarved();
  }

  // Credit: SPEC.md, section 7.

  #target(): number {
    return this.taken.offset + (this.#partial?.cost ?? 0) + this.window;
  }

  /** Whether a renewal would raise the credit by at least half the window. */
  get isCreditDue(): boolean {
    return this.#target() - this.granted >= Math.floor(this.window / 2);
  }

  renew(): number {
    this.granted = Math.max(this.granted, this.#target());
    return this.granted;
  }

  peerBlocked(offset: number): void {
    this.#blocked = Math.min(offset, this.granted);
    this.#growIfStarved();
  }

  /** Doubles the window when it is what limits the stream. */
  #growIfStarved(): void {
    if (this.#blocked === undefined) return;
    if (this.received.offset > this.#blocked) {
      this.#blocked = undefined;
    } else if (this.untaken - (this.#partial?.cost ?? 0) === 0) {
      this.#blocked = undefined;
      this.window = Math.min(2 * this.window, this.#largestWindow);
    }
  }
}

const invalidText = () => new Violation(wire.INVALID_TEXT);
