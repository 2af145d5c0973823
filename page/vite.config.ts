import { svelte } from "@sveltejs/vite-plugin-svelte";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";
import { stamp } from "./stamp.ts";

// Two entries, the page of a run and the studio (`--mode studio`), each
// one classic script and one style sheet, which cutaway/inspect/page.py puts into every page. The content policy of a
// page lets no string become markup, so elements are made by calls ("tree") and never parsed from a template.
const name = (mode: string): string => (mode === "studio" ? "studio" : "page");

export default defineConfig(({ mode }) => ({
  plugins: [
    svelte({
      configFile: false,
      emitCss: true,
      compilerOptions: { runes: true, fragments: "tree", discloseVersion: false },
    }),
    stamp(),
  ],
  publicDir: false,
  build: {
    outDir: fileURLToPath(new URL("../cutaway/inspect/page/web", import.meta.url)),
    emptyOutDir: false,
    copyPublicDir: false,
    target: "es2022",
    modulePreload: false,
    cssCodeSplit: false,
    rolldownOptions: {
      input: fileURLToPath(new URL(`src/${mode === "studio" ? "studio/main" : "main"}.ts`, import.meta.url)),
      output: { format: "iife", entryFileNames: `${name(mode)}.js`, assetFileNames: `${name(mode)}[extname]` },
    },
  },
}));
