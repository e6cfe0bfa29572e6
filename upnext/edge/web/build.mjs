// Builds the script, and what it loads when it is needed, whose name has its hash.

import { readdirSync, rmSync } from "node:fs";
import { basename } from "node:path";

import { build } from "esbuild";

const common = { bundle: true, minify: true, target: "es2020", legalComments: "none", outdir: "built", logLevel: "info" };
for (const file of readdirSync("built", { withFileTypes: true })) rmSync(`built/${file.name}`);
const { metafile } = await build({
  ...common,
  entryPoints: ["src/hints.js"],
  entryNames: "[name]-[hash]",
  format: "esm",
  metafile: true,
});
const hints = basename(Object.keys(metafile.outputs)[0]);
await build({ ...common, entryPoints: ["src/u.js"], format: "iife", define: { HINTS: JSON.stringify(hints) } });
