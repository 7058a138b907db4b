import { aborted, type UnstallError } from "./errors.ts";

/** Runs `work` behind everything that is ready now, once for any number of calls until then. */
export function soon(work: () => void): () => void {
  let due = false;
  const run = () => {
    due = false;
    work();
  };
  const later = scheduler();
  return () => {
    if (due) return;
    due = true;
    later(run);
  };
}

/** A turn of the event loop without the delays that browsers put on timers. */
function scheduler(): (run: () => void) => void {
  const { setImmediate } = globalThis as { setImmediate?: (run: () => void) => void };
  if (setImmediate) return setImmediate;
  const { port1, port2 } = new MessageChannel();
  let next = () => {};
  port1.onmessage = () => next();
  return (run) => {
    next = run;
    port2.postMessage(0);
  };
}

/** A promise with its ends. If nobody waits for it, its rejection is nobody's: it is never unhandled. */
export interface Deferred<Value> {
  readonly promise: Promise<Value>;
  resolve(value: Value): void;
  reject(error: unknown): void;
}

export function deferred<Value>(): Deferred<Value> {
  let ends: Pick<Deferred<Value>, "resolve" | "reject">;
  const promise = new Promise<Value>((resolve, reject) => {
    ends = { resolve, reject };
  });
  promise.catch(() => {});
  return { promise, ...ends! };
}

/** A promise that was rejected, and that may be left alone. */
export function rejected<Value>(error: unknown): Promise<Value> {
  const promise = Promise.reject(error);
  promise.catch(() => {});
  return promise;
}

/** Calls `stop` when the signal is aborted, and lets go of the signal when `over` has settled. */
export function onAbort(
  signal: AbortSignal | undefined,
  over: Promise<unknown>,
  stop: (why: UnstallError) => void,
): void {
  if (!signal) return;
  const listener = () => stop(aborted(signal));
  if (signal.aborted) {
    listener();
    return;
  }
  signal.addEventListener("abort", listener, { once: true });
  const done = () => signal.removeEventListener("abort", listener);
  over.then(done, done);
}
