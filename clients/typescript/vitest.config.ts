import { defineConfig } from "vitest/config";

// Tests that open pages of Chromium.
const pages = [
  "test/integration/chromium.test.ts",
  "test/integration/dashboard.test.ts",
  "test/integration/topics-chromium.test.ts",
  "test/integration/topics-examples.test.ts",
  "test/integration/topics-proof.test.ts",
  "test/integration/topics-react.test.ts",
];
const common = { globalSetup: "test/support/build.ts", testTimeout: 150_000, hookTimeout: 150_000 };

// Unit tests need nothing but Node. The others need the program `unstall`, and some of them Chromium: see
// test/support/programs.ts.
export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["test/unit/**/*.test.ts"] } },
      {
        test: {
          name: "integration",
          include: ["test/integration/**/*.test.ts"],
          exclude: pages,
          ...common,
          // They mostly wait.
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: "chromium",
          include: pages,
          ...common,
          // Two browsers at a time: they mostly wait, too.
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
