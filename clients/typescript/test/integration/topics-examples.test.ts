import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { hasChromium, openChromium } from "../support/browser.ts";
import { unstallBin } from "../support/programs.ts";
import { closeBehindEach, directory, hubOf, opened } from "../support/topics.ts";

closeBehindEach();

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);
const example = (name: string) => import(new URL(`../../examples/${name}`, import.meta.url).href);

describe.runIf(hasChromium)("in Chromium", () => {
  test("an answer survives refreshes and a hub that is killed: it is shown whole, and once", async () => {
    const { answer, ANSWER } = await example("answer/agent.mjs");
    const { serveSite } = await example("site.mjs");
    const hub = await hubOf("--store", await directory());
    const site = await serveSite(`ws://127.0.0.1:${hub.port}`);
    opened.push(async () => site.stop());
    const chromium = await openChromium();
    opened.push(() => chromium.close());
    const page = await chromium.browser.newPage();
    page.setDefaultTimeout(120_000);
    const shown = () => page.textContent("#answer");
    const writing = answer(hub.url, 42, 20);
    await page.goto(`${site.url}/examples/answer/?n=42`);
    for (const words of [" buffer", " pieces from", " network"]) {
      await page.waitForFunction(
        (words) => document.querySelector("#answer")?.textContent?.includes(words),
        words,
      );
      if (words === " network") {
        await hub.kill();
        await hub.start();
      }
      await page.reload();
      expect(ANSWER.startsWith(await shown())).toBe(true);
      expect(await shown()).toContain(words);
    }
    await writing;
    await page.waitForFunction(() =>
      document.querySelector("#status")?.textContent?.includes("complete"),
    );
    expect(await shown()).toBe(ANSWER);
    await page.reload();
    expect(await shown()).toBe(ANSWER);
    // Another device reads it from the start.
    const other = await chromium.browser.newPage();
    other.setDefaultTimeout(120_000);
    await other.goto(`${site.url}/examples/answer/?n=42`);
    await other.waitForFunction(() =>
      document.querySelector("#status")?.textContent?.includes("complete"),
    );
    expect(await other.textContent("#answer")).toBe(ANSWER);
  });

  test("the chart misses no tick over a hub that is killed, and its picture is made", async () => {
    const picture = `${await directory()}/chart.png`;
    const env = { ...process.env, UNSTALL_BIN: unstallBin() };
    const script = `${ROOT}/examples/chart/screenshot.mjs`;
    const { stdout } = await run("node", [script, picture, "0.25"], { env });
    expect(stdout).toMatch(/ 0 missing, 0 twice, [2-9] connections/);
  });
});
