import * as wire from "../../src/core/packet.ts";

/** The names of SPEC.md, section 15. */
export const ERRORS = [
  ...["MALFORMED", "UNKNOWN_KIND", "UNEXPECTED", "SEQUENCE_GAP", "SEQUENCE_EXHAUSTED"],
  ...["CREDIT_EXCEEDED", "INVALID_ACK", "MESSAGE_TOO_LARGE", "INVALID_TEXT", "INCONSISTENT"],
];
export const errorName = (code: number): string => ERRORS[code - 1] ?? `error ${code}`;

export const REJECTIONS = ["expired", "unknown", "not yours", "superseded", "full", "inconsistent"];
export const rejectionName = (reason: number): string => REJECTIONS[reason - 1] ?? `reason ${reason}`;

/** The names and fields of packets, as SPEC.md, section 3, has them. */
export const FIELDS: Record<number, [name: string, fields: string]> = {
  [wire.HELLO]: ["HELLO", "session_id token epoch generation received acked credit largest_message"],
  [wire.WELCOME]: ["WELCOME", "token epoch generation received acked credit largest_message life"],
  [wire.REJECT]: ["REJECT", "reason retry_after"],
  [wire.DATA]: ["DATA", "first"],
  [wire.ACK]: ["ACK", "seq"],
  [wire.CREDIT]: ["CREDIT", "offset"],
  [wire.BLOCKED]: ["BLOCKED", "offset"],
  [wire.PING]: ["PING", "number"],
  [wire.PONG]: ["PONG", "number"],
  [wire.CLOSE]: ["CLOSE", "last deadline code reason"],
  [wire.END]: ["END", ""],
  [wire.ABORT]: ["ABORT", "code reason"],
  [wire.GOAWAY]: ["GOAWAY", "window reason"],
};
