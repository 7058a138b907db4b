import { expect, test } from "vitest";
import { Backoff } from "../../src/backoff.ts";

const waits = (backoff: Backoff, count: number) => Array.from({ length: count }, () => backoff.next());

test("the bound of the random wait doubles up to the longest", () => {
  const most = () => 1;
  expect(waits(new Backoff({ first: 100, max: 1000 }, most), 6)).toEqual([
    100, 200, 400, 800, 1000, 1000,
  ]);
});

test("waits are random between zero and the bound", () => {
  const values = [0, 0.5, 0.25];
  expect(waits(new Backoff({ first: 100, max: 1000 }, () => values.shift()!), 3)).toEqual([0, 100, 100]);
});

test("a connection that proved itself is made again at once, and then with the first wait", () => {
  const backoff = new Backoff({ first: 100 }, () => 1);
  waits(backoff, 5);
  backoff.lived(10_000, true, false);
  expect(waits(backoff, 2)).toEqual([0, 100]);
});

test("a connection that moved messages proved itself, but a short one waits", () => {
  const backoff = new Backoff({ first: 100 }, () => 1);
  waits(backoff, 5);
  backoff.lived(99, true, true);
  expect(backoff.next()).toBe(100);
});

test("a connection that was short, or received nothing, proves nothing", () => {
  const backoff = new Backoff({ first: 100 }, () => 1);
  waits(backoff, 2);
  backoff.lived(9_999, true, false);
  backoff.lived(60_000, false, false);
  expect(backoff.next()).toBe(400);
});

test("attempts end after as many failures as are allowed", () => {
  expect(new Backoff().allows(1e9)).toBe(true);
  const three = new Backoff({ attempts: 3 });
  expect([three.allows(2), three.allows(3)]).toEqual([true, false]);
});
