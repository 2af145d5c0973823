// The run that is shown. A page holds one, which never changes; the studio puts another in its place as one types.
import type { Run, StripName, Token } from "./data";

class Held {
  current = $state.raw(JSON.parse(document.getElementById("run")?.textContent ?? "null") as Run);
}
export const held = new Held();

/** The fields of the run that is shown; whoever draws them draws them anew with the next run. */
export const run = new Proxy({} as Run, {
  get: (_, name) => Reflect.get(held.current, name) as unknown,
});

export const strip = (name: StripName): Token[] => (name === "target" ? run.target : run.tokens);
