/** Records: a whole message or a piece of one. SPEC-TOPICS.md, section 5. */

import { text as textOf, type Writer } from "../bytes.ts";
import { type Fields, type Int, must } from "./bytes.ts";
import { KNOWN_TOPICS, MAX_RECORD, RECORD_OVERHEAD } from "./limits.ts";
import { isTopic, matches } from "./name.ts";

const TEXT = 1;
const CONTINUES = 2;
const FINAL = 4;

/** A record that has arrived. What only the first one of a message has is 0 or empty in others. */
export interface Piece {
  readonly isText: boolean;
  readonly continues: boolean;
  readonly isFinal: boolean;
  readonly offset: Int;
  readonly time: Int;
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly cost: number;
}

/** The topics of a subscription. Names that were looked at once are known. */
export class Topics {
  readonly #known = new Set<string>();
  /** The topic that came last, which mostly comes again. */
  #last = new Uint8Array(0);
  #lastName = "";

  constructor(readonly filter: string) {}

  /** The topic that comes next, in so many bytes. */
  read(reader: Fields, length: number): string {
    if (length > 0 && length === this.#last.length && reader.skip(this.#last)) return this.#lastName;
    const bytes = reader.take(length);
    reader.check();
    const name = textOf(bytes);
    must(name !== undefined && (this.#known.has(name) || isTopic(name)));
    this.#last = bytes.slice();
    this.#lastName = name;
    return name;
  }

  /** The filter has to match the topic. */
  check(name: string): void {
    if (this.#known.has(name)) return;
    must(matches(this.filter, name), "INCONSISTENT");
    if (this.#known.size >= KNOWN_TOPICS) this.#known.clear();
    this.#known.add(name);
  }
}

/** The records of MESSAGES. `before` is the record whose message goes on, if there is one. */
export function readPieces(reader: Fields, topics: Topics, before: Piece | undefined): Piece[] {
  const pieces: Piece[] = [];
  let open = before;
  do {
    const piece = readPiece(reader, topics, open);
    pieces.push(piece);
    open = piece.continues ? piece : undefined;
  } while (reader.left > 0);
  return pieces;
}

function readPiece(reader: Fields, topics: Topics, open: Piece | undefined): Piece {
  const word = reader.count();
  must(word < 8 * (MAX_RECORD + 1));
  const bits = Number(word);
  const length = bits >> 3;
  const isText = (bits & TEXT) > 0;
  const continues = (bits & CONTINUES) > 0;
  const isFinal = (bits & FINAL) > 0;
  must(!continues || length > 0);
  let offset: Int = 0;
  let time: Int = 0;
  let topic = "";
  let cost = length + RECORD_OVERHEAD;
  if (open) {
    must(open.isText === isText && open.isFinal === isFinal);
  } else {
    offset = reader.count();
    time = reader.count();
    must(offset !== 0);
    const size = reader.u8();
    cost += size;
    topic = topics.read(reader, size);
  }
  const payload = reader.take(length);
  reader.check();
  return { isText, continues, isFinal, offset, time, topic, payload, cost };
}

/** A message that is published. */
export interface Outgoing {
  readonly topic: Uint8Array;
  readonly payload: Uint8Array;
  readonly isText: boolean;
  readonly isFinal: boolean;
}

/** How many records a message has. */
export function recordsOf(message: Outgoing): number {
  return Math.max(1, Math.ceil(message.payload.length / MAX_RECORD));
}

/** The cost of a whole message. */
export function costOf(message: Outgoing): number {
  return message.payload.length + message.topic.length + RECORD_OVERHEAD * recordsOf(message);
}

/** How long one record of a message is on the wire. */
export function recordSize(message: Outgoing, index: number): number {
  const length = payloadOf(message, index).length;
  const word = length < 8 ? 1 : length < 2_048 ? 2 : 4;
  return word + (index === 0 ? 1 + message.topic.length : 0) + length;
}

/** Writes one record of a message. */
export function writeRecord(writer: Writer, message: Outgoing, index: number): void {
  const payload = payloadOf(message, index);
  const continues = index + 1 < recordsOf(message);
  const bits = (message.isText ? TEXT : 0) | (continues ? CONTINUES : 0) | (message.isFinal ? FINAL : 0);
  writer.varint((payload.length << 3) | bits);
  if (index === 0) writer.u8(message.topic.length).raw(message.topic);
  writer.raw(payload);
}

function payloadOf(message: Outgoing, index: number): Uint8Array {
  return message.payload.subarray(index * MAX_RECORD, (index + 1) * MAX_RECORD);
}
