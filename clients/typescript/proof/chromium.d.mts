import type { Browser, BrowserContext, Page } from "playwright-core";

export function findChromium(): string | undefined;

export interface Chromium {
  readonly browser: Browser;
  readonly context: BrowserContext;
  /** A page that has this package, from the address of that WebSocket server. */
  newPage(webSocketUrl?: string): Promise<Page>;
  /** The URL by which any page reaches a WebSocket server. */
  sameOrigin(url: string): Promise<string>;
  close(): Promise<void>;
}

/** `asUsersDo`: tabs are really hidden, throttled, frozen and kept in the back-forward cache. */
export function openChromium(options?: { args?: string[]; asUsersDo?: boolean }): Promise<Chromium>;
