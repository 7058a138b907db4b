import type { UnstallError } from "./errors.ts";

/** Why messages are missing at a place of the received stream. */
export type GapReason =
  /**
   * A plain connection was lost and made again. What the peer sent in between is missing; nobody can say how
   * much.
   */
  | "reconnected"
  /** The session ended and could not be resumed. Another one may follow. */
  | "session lost"
  /** There was no room for these messages. */
  | "dropped";

/** The place in the received stream where something is missing. Nothing goes missing without one. */
export class Gap {
  readonly reason: GapReason;
  /** Why, if there is an error to tell. */
  readonly why: UnstallError | undefined;
  /** How many messages are missing; nothing if nobody knows. */
  readonly messages: number | undefined;

  constructor(reason: GapReason, why?: UnstallError, messages?: number) {
    this.reason = reason;
    this.why = why;
    this.messages = messages;
  }

  toString(): string {
    const count = this.messages === undefined ? "messages may be" : `${this.messages} messages are`;
    return `${count} missing: ${this.reason}${this.why ? ` (${this.why.message})` : ""}`;
  }
}
