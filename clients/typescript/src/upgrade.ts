import { utf8 } from "./core/bytes.ts";
import { printable, UnstallError } from "./errors.ts";

/** A bearer token; nothing if the application has none. */
export type Token = string | null | undefined;

/** The URLs as given, each checked. */
export function checkedUrls(urls: string | URL | readonly (string | URL)[]): string[] {
  const list = Array.isArray(urls) ? urls : [urls];
  if (list.length === 0) throw new UnstallError("options", "no URL was given: give at least one");
  return list.map((it: string | URL) => {
    let url: URL;
    try {
      url = new URL(it, globalThis.location?.href);
    } catch {
      throw new UnstallError("options", "a URL cannot be read: it looks like wss://host/path");
    }
    url.protocol = url.protocol.replace("http", "ws");
    if (!/^wss?:$/.test(url.protocol)) {
      throw new UnstallError(
        "options",
        `a URL begins with ${printable(url.protocol)}, but needs wss: or ws:`,
      );
    }
    if (url.username || url.password) {
      throw new UnstallError(
        "options",
        "a URL has a user or a password, which browsers refuse: use the option token",
      );
    }
    url.hash = "";
    return url.href;
  });
}

/** The application's token. Throws an `UnstallError` with the code `token` if its function fails. */
export async function tokenOf(
  token: Token | (() => Token | Promise<Token>),
): Promise<string | undefined> {
  try {
    return (typeof token === "function" ? await token() : token) ?? undefined;
  } catch (cause) {
    throw new UnstallError("token", "the application's token function failed", true, cause);
  }
}

/**
 * The token as a member of the list of subprotocols: browsers cannot set headers, and a URL is written to
 * logs. The server takes it from there and never selects it.
 */
export function bearerProtocol(token: string): string {
  let binary = "";
  for (const byte of utf8(token)) binary += String.fromCharCode(byte);
  const base64url = btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return `unstall.bearer.${base64url}`;
}

/** Why a connection did not open. Browsers do not say; the package `ws` does. */
export function openError(url: string, why: unknown): UnstallError {
  const words = why instanceof Error && why.message ? `: ${printable(why.message)}` : "";
  return new UnstallError("connect", `no connection to ${url}${words}`, true, why);
}

/** Why an open connection ended. Its peer does not want it again if it says 1003, 1008 or 1010. */
export function closedError(event: { code: number; reason: string }, why: unknown): UnstallError {
  const { code } = event;
  if (code === 1006) {
    return new UnstallError("lost", "the connection ended without a closing handshake", true, why);
  }
  const words = event.reason && `: ${printable(event.reason)}`;
  const retryable = ![1003, 1008, 1010].includes(code);
  const message = `the peer closed the connection with code ${code}${words}`;
  const error = new UnstallError("lost", message, retryable, why);
  error.closeCode = code;
  return error;
}
