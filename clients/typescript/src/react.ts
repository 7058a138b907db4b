import { useEffect, useRef, useState } from "react";
import { UnstallError } from "./errors.ts";
import type { SubscribeOptions } from "./topics/options.ts";
import type { Delivery } from "./topics/subscription.ts";
import type { Topics } from "./topics.ts";

/** What {@link useSubscription} gives to a component. */
export interface SubscriptionView<State> {
  /** What the deliveries so far make of the initial state. */
  readonly state: State;
  /** `"ended"`: the final message of the topic was delivered. `"failed"`: see `error`. */
  readonly status: "open" | "ended" | "failed";
  readonly error: UnstallError | undefined;
}

/**
 * Subscribes to a filter while the component is mounted, and renders again with what arrives. `reduce` makes the
 * next state of each delivery; what arrives together is one render.
 *
 * It subscribes anew, from the initial state, when `topics` or `filter` changes. `initial` and `options` are
 * looked at then, and not at each render. Keep `topics` outside of the component.
 */
export function useSubscription<State>(
  topics: Topics,
  filter: string,
  reduce: (state: State, delivery: Delivery) => State,
  initial: State,
  options?: SubscribeOptions,
): SubscriptionView<State> {
  const [view, show] = useState<SubscriptionView<State>>(() => open(initial));
  const latest = useRef({ reduce, initial, options });
  latest.current = { reduce, initial, options };
  useEffect(() => {
    const { initial, options } = latest.current;
    const subscription = topics.subscribe(filter, options);
    let state = initial;
    let mounted = true;
    const showIf = (next: SubscriptionView<State>) => mounted && show(next);
    const read = async () => {
      showIf(open(state));
      for await (const first of subscription) {
        for (let it: Delivery | undefined = first; it; it = subscription.read())
          state = latest.current.reduce(state, it);
        showIf(open(state));
      }
      showIf({ state, status: "ended", error: undefined });
    };
    read().catch((error) => {
      subscription.close();
      showIf({ state, status: "failed", error: asError(error) });
    });
    return () => {
      mounted = false;
      subscription.close();
    };
  }, [topics, filter]);
  return view;
}

function open<State>(state: State): SubscriptionView<State> {
  return { state, status: "open", error: undefined };
}

/** The application's `reduce` may throw anything. */
function asError(error: unknown): UnstallError {
  return error instanceof UnstallError
    ? error
    : new UnstallError("options", "the function reduce failed", false, error);
}
