import { expect, test } from "vitest";
import { Liveness } from "../../src/liveness.ts";

test("a connection that receives is never asked", () => {
  const live = new Liveness(10_000, 30_000, 0);
  for (let now = 5_000; now < 100_000; now += 5_000) {
    live.heard(now);
    if (now >= live.due) expect(live.tick(now)).toBe(undefined);
  }
});

test("silence is asked about, and a connection that does not answer is lost after the silence timeout", () => {
  const live = new Liveness(10_000, 30_000, 0);
  expect(live.tick(10_000)).toBe("ping");
  expect(live.due).toBe(30_000);
  expect(live.tick(20_000)).toBe(undefined);
  expect(live.tick(30_000)).toBe("lost");
});

test("an answer keeps it, and it is asked again a ping interval later", () => {
  const live = new Liveness(10_000, 30_000, 0);
  live.tick(10_000);
  expect(live.heard(10_050)).toBe(true);
  expect(live.due).toBe(20_050);
  expect(live.tick(20_050)).toBe("ping");
});

test("a timer that is throttled to one a minute does not kill a connection that answers", () => {
  const live = new Liveness(10_000, 30_000, 0);
  for (let now = 60_000; now < 600_000; now += 60_000) {
    expect(live.tick(now)).toBe("ping");
    live.heard(now + 20);
  }
});

test("with a throttled timer a connection that does not answer is lost all the same", () => {
  const live = new Liveness(10_000, 30_000, 0);
  expect(live.tick(60_000)).toBe("ping");
  expect(live.tick(120_000)).toBe("ping");
  expect(live.tick(180_000)).toBe("lost");
});

test("when the machine slept, the peer is asked before the connection is given up", () => {
  const live = new Liveness(10_000, 30_000, 0);
  expect(live.tick(10_000)).toBe("ping");
  expect(live.tick(3_600_000)).toBe("ping");
  live.heard(3_600_050);
  expect(live.tick(live.due)).toBe("ping");
});

test("a page that is seen again gives a dead connection five seconds", () => {
  const live = new Liveness(10_000, 30_000, 0);
  live.heard(59_000);
  live.check(60_000);
  expect(live.due).toBe(65_000);
  expect(live.tick(65_000)).toBe("lost");
});
