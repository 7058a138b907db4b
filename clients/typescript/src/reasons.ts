import type { EndReason, Refusal } from "./core/session.ts";
import { printable, UnstallError } from "./errors.ts";

/** The reasons of a rejection, from 1: SPEC.md, section 15. */
const REJECTED = [
  "it was without a connection for too long, or the server ended it",
  "the server was restarted and does not know it",
  "it belongs to another client",
  "a newer connection uses it",
  "the server has no room for it",
  "the positions of the two sides do not fit",
];

const rejection = (reason: number) => REJECTED[reason - 1] ?? `reason ${reason}`;

const broken = (error: number) =>
  new UnstallError("peer", `the server broke the protocol: error ${error} of SPEC.md, section 15`, true);

/** The error for a session that ended; nothing if it was closed in order. */
export function endError(reason: EndReason): UnstallError | undefined {
  const lost = (words: string) => new UnstallError("session", `the session was lost: ${words}`, true);
  switch (reason.type) {
    case "closed":
      return undefined;
    case "close timed out":
      return new UnstallError("timeout", "the close was not completed by its deadline");
    case "aborted":
      return new UnstallError("session", `the session ended: ${printable(reason.reason)}`);
    case "aborted by peer":
      return lost(`the server aborted it (code ${reason.code}): ${printable(reason.reason)}`);
    case "rejected":
      return lost(rejection(reason.rejection));
    case "protocol":
      return broken(reason.error);
    case "expired":
      return lost("it was without a connection for too long");
  }
}

/** The error with which a connection ends whose packet was refused. */
export function isRefused(refusal: Refusal): UnstallError {
  switch (refusal.type) {
    case "superseded":
      return new UnstallError("lost", "another connection of the same session replaced this one", true);
    case "rejected":
      return new UnstallError(
        "rejected",
        `the server rejected the session: ${rejection(refusal.rejection)}`,
        true,
      );
    case "protocol":
      return broken(refusal.error);
  }
}

/** The error for a session that the server closed with a code that says that something was wrong. */
export function closedWith(code: number, reason: string): UnstallError {
  const words = reason && `: ${printable(reason)}`;
  const error = new UnstallError(
    "session",
    `the server closed the session with code ${code}${words}`,
    isFollowed(code),
  );
  error.closeCode = code;
  return error;
}

/** Whether a client may begin another session after a close with this code. */
export const isFollowed = (code: number): boolean => ![1000, 1003, 1008, 1010].includes(code);
