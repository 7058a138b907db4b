import type { Message } from "./core/record.ts";
import { UnstallError } from "./errors.ts";

/** What can be sent: text, or bytes. */
export type Sendable = string | ArrayBuffer | ArrayBufferView;

/** Bytes are a view of the application's own. Throws an `UnstallError` with the code `options`. */
export function messageOf(data: Sendable): Message {
  if (typeof data === "string" || data instanceof Uint8Array) return data;
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  throw new UnstallError("options", "a message is a string, an ArrayBuffer, or a view of one");
}
