// Builds the script, and what it loads when it is needed, whose name has its hash.

import { readdirSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";

import { build, transform } from "esbuild";

const common = {
  bundle: true,
  minify: true,
  target: "es2020",
  legalComments: "none",
  outdir: "built",
  logLevel: "info",
  plugins: [{ name: "styles", setup: (build) => build.onLoad({ filter: /\.css$/ }, styles) }],
};

for (const file of readdirSync("built", { withFileTypes: true })) rmSync(`built/${file.name}`);

/** Return a style sheet as a text, without what only people read. */
async function styles({ path }) {
  const { code } = await transform(await readFile(path, "utf8"), { loader: "css", minify: true });
  return { contents: code, loader: "text" };
}

const { metafile } = await build({
  ...common,
  entryPoints: ["src/hints.js"],
  entryNames: "[name]-[hash]",
  format: "esm",
  metafile: true,
});
const hints = basename(Object.keys(metafile.outputs)[0]);
await build({ ...common, entryPoints: ["src/u.js"], format: "iife", define: { HINTS: JSON.stringify(hints) } });
