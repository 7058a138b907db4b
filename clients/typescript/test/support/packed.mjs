// What `npm publish` would take is just what is needed. Build the package first.
import { execFileSync } from "node:child_process";

const needed = [
  "CHANGELOG.md",
  "LICENSE-APACHE",
  "LICENSE-MIT",
  "README.md",
  "dist/index.d.ts",
  "dist/index.js",
  "dist/index.js.map",
  "dist/react.d.ts",
  "dist/react.js",
  "dist/react.js.map",
  "package.json",
];
// What both entries share has a hash in its name.
const shared = /^dist\/\w+-[\w-]{8}\.(d\.ts|js|js\.map)$/;

const output = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
  stdio: ["ignore", "pipe", "ignore"],
});
const files = JSON.parse(output.toString())[0].files.map((file) => file.path);
const missing = needed.filter((name) => !files.includes(name));
const extra = files.filter((name) => !needed.includes(name) && !shared.test(name));
if (missing.length + extra.length > 0) {
  console.error(`the package lacks [${missing}] and has [${extra}], which it does not need`);
  process.exit(1);
}
console.log(`the package has ${files.length} files, all of them needed`);
