/** Chromium for tests: what proof/ has, with types. */

import type { Browser, Page } from "playwright-core";

interface Chromium {
  readonly browser: Browser;
  readonly origin: string;
  newPage(): Promise<Page>;
  /** The URL by which a page reaches a WebSocket server that takes only its own pages. */
  sameOrigin(url: string): Promise<string>;
  close(): Promise<void>;
}

const proof = (name: string) => import(new URL(`../../proof/${name}`, import.meta.url).href);

const page: { findChromium(): string | undefined } = await proof("page.mjs");
const chromium: { openChromium(args?: string[]): Promise<Chromium> } = await proof("chromium.mjs");

export const hasChromium = page.findChromium() !== undefined;
export const openChromium = chromium.openChromium;
