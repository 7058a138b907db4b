import type { Browser, BrowserContext, Page } from "playwright-core";

export function findChromium(): string | undefined;
export function openPage(webSocketUrl: string): Promise<{
  page: Page;
  context: BrowserContext;
  browser: Browser;
  url: string;
  close(): Promise<void>;
}>;
