/** What a browser's page goes through. In Node, Deno and Bun nothing of it happens. */
export interface PageLife {
  /** The page is seen again, or the network has changed: a connection may be dead without a sign. */
  check(): void;
  /** The browser says that there is a network again. */
  online(): void;
  /** The page goes into the back-forward cache. With an open WebSocket it could not. */
  suspend(): void;
  /** The page came back from there. */
  resume(): void;
}

/** Whether the browser is sure that there is no network. */
export const isOffline = (): boolean => globalThis.navigator?.onLine === false;

/** Whether timers of the page may be throttled: to one a second, later to one a minute. */
export const isHidden = (): boolean => globalThis.document?.visibilityState === "hidden";

/** Calls `life` until the returned function is called. */
export function watchPage(life: PageLife): () => void {
  const { document } = globalThis;
  if (typeof globalThis.addEventListener !== "function" || !globalThis.navigator) return () => {};
  const stop = new AbortController();
  const on = (target: EventTarget | undefined, name: string, listener: (event: Event) => void) =>
    target?.addEventListener(name, listener, { signal: stop.signal });
  on(document, "visibilitychange", () => isHidden() || life.check());
  on(document, "resume", () => life.check());
  on(globalThis, "offline", () => life.check());
  on(globalThis, "online", () => life.online());
  on(globalThis, "pagehide", (event) => {
    if ((event as PageTransitionEvent).persisted) life.suspend();
  });
  on(globalThis, "pageshow", (event) => {
    if ((event as PageTransitionEvent).persisted) life.resume();
  });
  return () => stop.abort();
}
