/** Where a subscription begins, and positions: SPEC-TOPICS.md, sections 1 and 4. */

import { exact, type Int } from "./bytes.ts";
import { OFFSETS } from "./limits.ts";

/** A place behind a message of a log. */
export interface Place {
  /** The log's id: 32 hexadecimal digits. */
  readonly log: string;
  readonly offset: Int;
  /** When the message there was stored. 0: it is not known. */
  readonly time: Int;
}

/** A snapshot of the latest messages, whole or cut off. */
export interface Snapshot {
  readonly log: string;
  /** The last message that the log had when the snapshot was made, and its time. */
  readonly end: Int;
  readonly time: Int;
  /** Everything up to here has come. */
  readonly offset: Int;
}

/** The start of SUBSCRIBE. */
export type Start =
  | { readonly name: "beginning" | "now" }
  | ({ readonly name: "after" } & Place)
  | ({ readonly name: "latest" } & Snapshot)
  | { readonly name: "last"; readonly count: number }
  | { readonly name: "since"; readonly time: Int };

/** No log, in a start that names no position. */
export const NO_LOG = "0".repeat(32);

/** The text form of a position, `LOG:OFFSET:TIME`. It is the same in every language. */
export function placeText(place: Place): string {
  return `${place.log}:${place.offset}:${place.time}`;
}

/** The reverse. Nothing if the text is not a position. */
export function placeOf(text: string): Place | undefined {
  const [, log, offset, time] = /^([0-9a-f]{32}):(\d{1,19}):(\d{1,19})$/i.exec(text) ?? [];
  if (!log || !offset || !time) return undefined;
  const numbers = [BigInt(offset), BigInt(time)] as const;
  if (numbers.some((number) => number >= OFFSETS)) return undefined;
  return { log: log.toLowerCase(), offset: exact(numbers[0]), time: exact(numbers[1]) };
}
