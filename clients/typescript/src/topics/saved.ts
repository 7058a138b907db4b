/** A position that is kept in the page's session storage, and with it what the application knows. */
export interface SavedPosition<State> {
  /** The position that was saved last: give it to `subscribe` as `after`. Nothing at first. */
  readonly after: string | undefined;
  /** What was saved with it. Nothing at first. */
  readonly state: State | undefined;
  /**
   * Saves a position, or that of a delivery, and what the application knows up to there. Both are one entry,
   * so a refresh finds both or neither of them. `state` has to have a form in JSON. Returns whether there was
   * room: if not, the earlier pair stays.
   */
  save(position: string | { readonly position: string }, state?: State): boolean;
  /** Forgets it. */
  clear(): void;
}

/**
 * Keeps a position over a refresh of the page, in `sessionStorage`: each tab has its own. Elsewhere, or if the
 * browser refuses, it is kept in memory only. Give it another `Storage`, such as `localStorage`, to keep it
 * longer; then only one tab may use it.
 */
export function savedPosition<State = undefined>(
  key: string,
  storage: Storage | undefined = sessionStorageOf(),
): SavedPosition<State> {
  const name = `unstall:${key}`;
  let [after, state] = load<State>(storage, name);
  return {
    get after() {
      return after;
    },
    get state() {
      return state;
    },
    save(position, known) {
      const text = typeof position === "string" ? position : position.position;
      try {
        storage?.setItem(name, JSON.stringify([text, known]));
      } catch {
        return false;
      }
      [after, state] = [text, known];
      return storage !== undefined;
    },
    clear() {
      storage?.removeItem(name);
      [after, state] = [undefined, undefined];
    },
  };
}

function sessionStorageOf(): Storage | undefined {
  try {
    return globalThis.sessionStorage;
  } catch {
    // A page in a sandbox has none.
    return undefined;
  }
}

function load<State>(storage: Storage | undefined, name: string): [string?, State?] {
  try {
    const [after, state] = JSON.parse(storage?.getItem(name) ?? "[]");
    return typeof after === "string" ? [after, state] : [];
  } catch {
    return [];
  }
}
