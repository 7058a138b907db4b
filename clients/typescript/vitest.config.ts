import { defineConfig } from "vitest/config";

// Unit tests need nothing but Node. Integration tests need the program `unstall`, and some of them
// Chromium: see test/support/programs.ts.
export default defineConfig({
  test: {
    // They mostly wait, and two of them leave room for the browsers.
    maxWorkers: 2,
    projects: [
      { test: { name: "unit", include: ["test/unit/**/*.test.ts"] } },
      {
        test: {
          name: "integration",
          include: ["test/integration/**/*.test.ts"],
          globalSetup: "test/support/build.ts",
          testTimeout: 150_000,
          hookTimeout: 150_000,
        },
      },
    ],
  },
});
