// Makes the page of unstall-dashboard: one HTML file with its script and style in it, and the policy that lets a
// browser run just these. Both are committed, so that the crate builds with nothing but Rust.
//
//   node dashboard/build.mjs           writes them
//   node dashboard/build.mjs --check   fails if they are not what these sources make

import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const PAGE = fileURLToPath(new URL("../../../dashboard/src/page/", import.meta.url));

const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

async function bundled() {
  const bundle = await rolldown({ input: `${HERE}main.ts`, platform: "browser", treeshake: true });
  const { output } = await bundle.generate({ format: "iife", minify: true });
  await bundle.close();
  // A closing tag within the script would end it.
  return output[0].code.trim().replaceAll("</script", "<\\/script");
}

const script = await bundled();
const style = (await readFile(`${HERE}style.css`, "utf8"))
  .replaceAll(/\/\*.*?\*\//gs, "")
  .replaceAll(/\s*\n\s*/g, "\n")
  .trim();
const html = (await readFile(`${HERE}index.html`, "utf8"))
  .replace("/* style */", () => style)
  .replace("/* script */", () => script);
const policy = [
  "default-src 'none'",
  `script-src ${hash(script)}`,
  `style-src ${hash(style)}`,
  "connect-src 'self'",
  "img-src data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

const made = { "index.html": html, "policy.txt": `${policy}\n` };
for (const [name, text] of Object.entries(made)) {
  if (!process.argv.includes("--check")) {
    await writeFile(PAGE + name, text);
    continue;
  }
  const committed = await readFile(PAGE + name, "utf8").catch(() => "");
  if (committed === text) continue;
  console.error(
    `dashboard/src/page/${name} is not what clients/typescript makes: run node dashboard/build.mjs there`,
  );
  process.exitCode = 1;
}
