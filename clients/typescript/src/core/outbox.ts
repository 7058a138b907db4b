import { putU64, putVarint } from "./bytes.ts";
import {
  DATA_HEADER,
  MAX_PACKET_COST,
  MAX_POSITION,
  MAX_RECORD,
  messageCost,
  PACKET_FILL,
  RECORD_OVERHEAD,
  SMALL_PACKET,
} from "./limits.ts";
import { DATA, INCONSISTENT, INVALID_ACK, Violation } from "./packet.ts";
import { type Message, Records } from "./record.ts";

/** Whether the peer can have received an undelivered message. */
export type Fate = "not sent" | "maybe delivered";

/** A message that was accepted and not acknowledged when its session ended. */
export interface Undelivered {
  data: Message;
  fate: Fate;
}

/** A packet that is complete, and kept until all of it is acknowledged. */
interface Sealed {
  bytes: Uint8Array;
  /** The number of its first record. */
  first: number;
  /** Its last record, and the offset at which that ends. */
  seq: number;
  offset: number;
  /** Its last message continues in the next packet. */
  continues: boolean;
}

const NOTHING = new Uint8Array(0);
/** Longer text is not looked at character by character. */
const SHORT_TEXT = 160;

/** Accepted messages, encoded at once, in packets, until the peer acknowledges them. */
export class Outbox {
  readonly #limit: number;
  /** The complete packets that are not wholly acknowledged, in order. */
  #sealed: Sealed[] = [];
  /** The index in them of the packet to send next on this connection. */
  #next = 0;
  /** The packet that is being filled: its bytes, where they end, its cost, its records. */
  #open = NOTHING;
  #at = 0;
  #cost = 0;
  #records = 0;
  /** The last record that was accepted, and where it ends. */
  accepted = 0;
  #offset = 0;
  /** The offset at which the first kept packet begins. */
  #released = 0;
  /** The last record that the peer has acknowledged. */
  acked = 0;
  /** The last record that was given to any connection; to this one, or named by its peer as received. */
  #sent = 0;
  #onConnection = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The cost of what is kept. */
  get kept(): number {
    return this.#offset - this.#released;
  }

  /** The cost of what may still be accepted. */
  get room(): number {
    return this.#limit - this.kept;
  }

  get isDelivered(): boolean {
    return this.acked === this.accepted;
  }

  /** The memory of everything that is kept, in bytes. */
  get memory(): number {
    return this.#sealed.reduce((sum, packet) => sum + packet.bytes.length, this.#open.length);
  }

  /** Accepts a message if there is room: the number of its last record, else 0. */
  push(isText: number, payload: Uint8Array): number {
    const { length } = payload;
    const cost = messageCost(length);
    if (cost > this.room || this.#offset + cost > MAX_POSITION) return 0;
    let begin = 0;
    while (length - begin > MAX_RECORD) {
      this.#seal();
      this.#append(isText | 2, payload.subarray(begin, begin + MAX_RECORD));
      this.#seal(true);
      begin += MAX_RECORD;
    }
    this.#append(isText, begin === 0 ? payload : payload.subarray(begin));
    return this.accepted;
  }

  /**
   * Accepts a short text if all of it is ASCII and there is room: the number of its record, else 0. Then
   * nothing is changed, and {@link push} decides.
   */
  pushShort(text: string): number {
    const { length } = text;
    const cost = length + RECORD_OVERHEAD;
    if (length > SHORT_TEXT || cost > this.room || this.#offset + cost > MAX_POSITION) return 0;
    const start = this.#begin(length);
    const bytes = this.#open;
    let at = putVarint(bytes, start, (length << 2) | 1);
    for (let index = 0; index < length; index++) {
      const unit = text.charCodeAt(index);
      if (unit > 0x7f) return 0;
      bytes[at++] = unit;
    }
    return this.#end(at, cost);
  }

  #append(flags: number, payload: Uint8Array): void {
    const { length } = payload;
    const start = this.#begin(length);
    let at = putVarint(this.#open, start, length * 4 + flags);
    if (length > 32) {
      this.#open.set(payload, at);
      at += length;
    } else {
      for (let index = 0; index < length; index++) this.#open[at++] = payload[index]!;
    }
    this.#end(at, length + RECORD_OVERHEAD);
  }

  /** Where a record with that payload begins: in the open packet, or in a new one if it does not fit. */
  #begin(length: number): number {
    const size = length + 4;
    const cost = this.#cost + length + RECORD_OVERHEAD;
    if (this.#records > 0 && (this.#at + size > PACKET_FILL || cost > MAX_PACKET_COST)) this.#seal();
    if (this.#at === 0) this.#at = DATA_HEADER;
    const needed = this.#at + size;
    if (needed > this.#open.length) {
      const capacity = Math.max(needed, Math.min(4 * needed, PACKET_FILL), SMALL_PACKET);
      const grown = new Uint8Array(capacity);
      grown.set(this.#open.subarray(0, this.#at));
      this.#open = grown;
    }
    return this.#at;
  }

  #end(at: number, cost: number): number {
    this.#at = at;
    this.#cost += cost;
    this.#records += 1;
    this.#offset += cost;
    this.accepted += 1;
    return this.accepted;
  }

  /** Completes the open packet, if there is one. */
  #seal(continues = false): void {
    if (this.#records === 0) return;
    const first = this.accepted - this.#records + 1;
    const { length } = this.#open;
    // A packet may wait for long, so room for records that did not come is given back.
    const bytes =
      this.#at > length / 2 ? this.#open.subarray(0, this.#at) : this.#open.slice(0, this.#at);
    bytes[0] = DATA;
    putU64(bytes, 1, first);
    this.#sealed.push({ bytes, first, seq: this.accepted, offset: this.#offset, continues });
    // When packets come full, the next one does not need to grow.
    this.#open = length >= PACKET_FILL && this.#at > length / 2 ? new Uint8Array(PACKET_FILL) : NOTHING;
    this.#at = this.#cost = this.#records = 0;
  }

  /** How many complete packets wait to be sent on this connection. */
  get pending(): number {
    return this.#sealed.length - this.#next;
  }

  /** The offset at which the packet to send next ends; 0 if there is none. */
  get nextEnd(): number {
    const packet = this.#sealed[this.#next];
    if (packet) return packet.offset;
    return this.#records > 0 ? this.#offset : 0;
  }

  /** The next packet to send on this connection. Only if {@link nextEnd} has one. */
  transmit(): Uint8Array {
    if (this.#next === this.#sealed.length) this.#seal();
    const packet = this.#sealed[this.#next++]!;
    this.#sent = Math.max(this.#sent, packet.seq);
    this.#onConnection = Math.max(this.#onConnection, packet.seq);
    return packet.bytes;
  }

  /** Checks that a peer can have received up to `received`, and acknowledged up to `acked`. */
  checkResume(received: number, acked: number): void {
    if (received > this.#sent || received < this.acked || acked > received) {
      throw new Violation(INCONSISTENT);
    }
    this.#checkWhole(acked);
  }

  /** Goes on after `received` on a new connection. Returns how many records are sent again. */
  rewind(received: number): number {
    this.#onConnection = received;
    this.#next = this.#place((packet) => packet.seq > received);
    return this.#sent - received;
  }

  #place(holds: (packet: Sealed) => boolean): number {
    const index = this.#sealed.findIndex(holds);
    return index < 0 ? this.#sealed.length : index;
  }

  /** The peer has acknowledged everything up to `seq`. */
  acknowledge(seq: number): void {
    if (seq <= this.acked) return;
    if (seq > this.#onConnection) throw new Violation(INVALID_ACK);
    this.#checkWhole(seq);
    this.acked = seq;
    const done = this.#place((packet) => packet.seq > seq);
    if (done === 0) return;
    this.#released = this.#sealed[done - 1]!.offset;
    this.#sealed.splice(0, done);
    this.#next = Math.max(this.#next - done, 0);
    // With little traffic, an idle session holds no memory for the next packet.
    if (this.#sealed.length === 0 && this.#records === 0 && done === 1) this.#open = NOTHING;
  }

  #checkWhole(acked: number): void {
    const packet = this.#sealed.find((it) => it.seq >= acked);
    if (packet?.continues && packet.seq === acked) {
      throw new Violation(INVALID_ACK);
    }
  }

  /** Gives back, once, every message that is not acknowledged. */
  takeUndelivered(): Undelivered[] {
    this.#seal();
    const undelivered: Undelivered[] = [];
    let parts: Uint8Array[] = [];
    for (const packet of this.#sealed) {
      let seq = packet.first - 1;
      const records = new Records(packet.bytes, DATA_HEADER);
      while (records.next()) {
        seq += 1;
        if (seq <= this.acked) continue;
        parts.push(records.payload());
        if (records.continues) continue;
        const fate = seq <= this.#sent ? "maybe delivered" : "not sent";
        undelivered.push({ data: Records.message(records.isText, parts)!, fate });
        parts = [];
      }
    }
    this.#sealed = [];
    this.#open = NOTHING;
    this.#next = 0;
    this.#released = this.#offset;
    return undelivered;
  }
}
