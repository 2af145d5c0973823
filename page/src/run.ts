import type { Run, StripName, Token } from "./data";

/** What the page holds. It never changes. */
export const run = JSON.parse(document.getElementById("run")?.textContent ?? "null") as Run;

export const strip = (name: StripName): Token[] => (name === "target" ? run.target : run.tokens);
