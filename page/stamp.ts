// What a build says of itself: the licences of the libraries in it, and which sources it was made from.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const FILES = ["package.json", "package-lock.json", "stamp.ts", "tsconfig.json", "vite.config.ts"];

const sha = (content: string | Uint8Array): string => createHash("sha256").update(content).digest("hex");

/** The SHA-256 of the lines "sha256  path" of all sources, in the order of their paths. */
function sources(): string {
  const own = readdirSync(join(HERE, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(HERE.length).replaceAll("\\", "/"));
  const paths = [...FILES, ...own].sort();
  return sha(paths.map((path) => `${sha(readFileSync(join(HERE, path)))}  ${path}\n`).join(""));
}

/** The packages that the code of these modules comes from: "name version" -> its licence. */
function licences(modules: string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const path of modules.toSorted()) {
    const [folder] = /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path) ?? [];
    if (!folder) continue;
    const { name, version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Record<string, string>;
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name} has no licence file`);
    found.set(`${name} ${version}`, readFileSync(join(folder, file), "utf8").trim());
  }
  return found;
}

export function stamp(): Plugin {
  return {
    name: "stamp",
    apply: "build",
    generateBundle(_, bundle) {
      for (const chunk of Object.values(bundle)) {
        if (chunk.type !== "chunk") continue;
        const used = Object.entries(chunk.modules).filter(([, module]) => module.renderedLength > 0);
        const words = [...licences(used.map(([path]) => path))].map(([name, licence]) => `${name}\n\n${licence}`);
        chunk.code = `/*! This script contains parts of:\n\n${words.join("\n\n")}\n*/\n${chunk.code}`;
      }
    },
    writeBundle({ dir }, bundle) {
      const built = Object.keys(bundle).sort();
      const sums = built.map((name) => [name, sha(readFileSync(join(dir ?? "", name)))] as const);
      const path = join(HERE, "built.json"); // each entry adds its own files
      const before = JSON.parse(readFileSync(path, "utf8")) as Record<string, string>;
      const found: Record<string, string> = { ...before, ...Object.fromEntries(sums) };
      const rest = Object.keys(found).sort().filter((name) => name !== "sources");
      const stamped = { sources: sources(), ...Object.fromEntries(rest.map((name) => [name, found[name]])) };
      writeFileSync(path, `${JSON.stringify(stamped, null, 2)}\n`);
    },
  };
}
