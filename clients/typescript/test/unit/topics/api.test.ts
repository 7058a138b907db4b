import { describe, expect, test } from "vitest";
import { placeOf, placeText } from "../../../src/core/topics/start.ts";
import { Topics, UnstallError } from "../../../src/index.ts";
import { boundsOf, startOf } from "../../../src/topics/options.ts";
import { savedPosition } from "../../../src/topics/saved.ts";
import { expiryOf, Tokens } from "../../../src/topics/tokens.ts";

const LOG = "0123456789abcdef0123456789abcdef";
const POSITION = `${LOG}:7:1764500000000`;

/** A storage of a page. `full`: it refuses to keep anything. */
function storage(full = false): Storage {
  const items = new Map<string, string>();
  return {
    getItem: (name: string) => items.get(name) ?? null,
    removeItem: (name: string) => void items.delete(name),
    setItem: (name: string, value: string) => {
      if (full) throw new Error("QuotaExceededError");
      items.set(name, value);
    },
  } as unknown as Storage;
}

describe("a saved position", () => {
  test("comes back with what was saved beside it", () => {
    const kept = storage();
    const first = savedPosition<{ text: string }>("answer.1", kept);
    expect([first.after, first.state]).toEqual([undefined, undefined]);
    expect(first.save({ position: POSITION }, { text: "so far" })).toBe(true);
    const second = savedPosition<{ text: string }>("answer.1", kept);
    expect([second.after, second.state]).toEqual([POSITION, { text: "so far" }]);
    expect(savedPosition("answer.2", kept).after).toBeUndefined();
    second.clear();
    expect(savedPosition("answer.1", kept).after).toBeUndefined();
  });

  test("stays where it was when there is no room, and says so", () => {
    const full = storage(true);
    const saved = savedPosition<number>("t", full);
    expect(saved.save(POSITION, 1)).toBe(false);
    expect([saved.after, saved.state]).toEqual([undefined, undefined]);
  });

  test("is nothing if what is there is not one", () => {
    const broken = storage();
    for (const value of ["", "{", "[1,2]", "7"]) {
      broken.setItem("unstall:t", value);
      expect(savedPosition("t", broken).after).toBeUndefined();
    }
  });

  test("is kept in memory where there is no storage", () => {
    const saved = savedPosition<number>("t", undefined);
    expect(saved.save(POSITION, 3)).toBe(false);
    expect([saved.after, saved.state]).toEqual([POSITION, 3]);
  });
});

test("a position is the same after its text form, also the largest one", () => {
  const largest = 2n ** 62n - 1n;
  for (const place of [
    { log: LOG, offset: 0, time: 0 },
    { log: LOG, offset: largest, time: largest },
  ])
    expect(placeOf(placeText(place))).toEqual(place);
  for (const text of [
    "",
    `${LOG}:1`,
    `${LOG}:1:2:3`,
    `${LOG}:+1:2`,
    `${LOG}:${largest + 1n}:0`,
    `${LOG}0:1:2`,
  ])
    expect(placeOf(text), text).toBeUndefined();
});

test("options that make no sense are refused, and the message says which", () => {
  const wrong: [() => unknown, string][] = [
    [() => startOf("a..b", {}), "filter"],
    [() => startOf("t", { after: "7" }), "after"],
    [() => startOf("t", { from: { last: 0 } }), "last"],
    [() => startOf("t", { from: { since: new Date("never") } }), "since"],
    [() => boundsOf({ window: 1_000 }), "window"],
    [() => boundsOf({ largestLag: -1 }), "largestLag"],
    [() => new Topics([]), "URL"],
    [() => new Topics("ws://127.0.0.1:1", { maxMessageBytes: 1 }), "maxMessageBytes"],
    [() => new Topics("ws://127.0.0.1:1", { publishWindow: 0 }), "publishWindow"],
    [() => new Topics("ws://127.0.0.1:1", { publisher: { id: "me", epoch: 1 } }), "publisher"],
  ];
  for (const [deed, word] of wrong) {
    expect(deed).toThrow(UnstallError);
    expect(deed).toThrow(word);
  }
});

describe("a token", () => {
  const jwt = (claims: object) => `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.x`;

  test("tells when it expires, if it is a JSON Web Token that says so", () => {
    expect(expiryOf(jwt({ exp: 1_764_500_000.5, name: "é" }))).toBe(1_764_500_000_500);
    for (const text of [jwt({}), jwt({ exp: "soon" }), "", "opaque", "a.b.c", "a.%%%.c"])
      expect(expiryOf(text)).toBeUndefined();
  });

  test("that no header can carry is refused, and not shown", async () => {
    for (const token of ["two words", "é", "x".repeat(8_193)]) {
      const tokens = new Tokens(
        token,
        () => {},
        () => {},
      );
      const error = await tokens.next().catch((it) => it);
      expect([error.code, error.retryable]).toEqual(["token", false]);
      expect(error.message).not.toContain(token);
    }
  });
});
