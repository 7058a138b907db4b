import { defineConfig } from "vitest/config";

// Unit tests need nothing but Node. Integration tests need the program `unstall`, and some of them
// Chromium: see test/support/programs.ts.
export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["test/unit/**/*.test.ts"] } },
      {
        test: {
          name: "integration",
          include: ["test/integration/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
