// The address says what is shown, so that going back, reloading and a copied link work. A link to another text's page is
// not followed: its layers and tokens would mean something else here.
import { page } from "./page.svelte";
import type { StripName } from "./data";
import { run, strip } from "./run.svelte";

const WORDS = 80; // characters of the text that tell one page from another
const named = (): string => [...run.text].slice(0, WORDS).join("");
const counted = (word: string | undefined): number | undefined => (word && /^\d+$/.test(word) ? Number(word) : undefined);

/** Shows what the address says; false where it speaks of another text. */
export function follow(): boolean {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (given.text !== undefined && given.text !== named()) return false;
  if (given.attention && given.attention in run.attention && given.attention !== page.kind) page.turnTo(given.attention);
  if (page.views.some(([name]) => name === given.view)) page.open(given.view);
  page.choose(counted(given.layer) ?? page.layer, counted(given.head) ?? page.head);
  const token = counted(given.token);
  const of: StripName = given.of === "target" ? "target" : "tokens";
  if (token !== undefined) {
    if (page.view === "layers" && strip(of).length) page.follow(of, Math.min(token, strip(of).length - 1));
    else page.token = Math.min(token, strip(page.followed).length - 1);
  }
  const step = counted(given.step);
  if (step !== undefined) page.step = Math.min(step, Math.max(run.steps.length - 1, 0));
  return true;
}

let last = "";

/** Puts what is shown into the address: another view or head is a step that one can go back from. */
export function write(): void {
  const { view, kind, layer, head, token, step, followed } = page;
  const place = { view, attention: kind, layer: `${layer}`, head: `${head}` };
  const state = { text: named(), ...place, token: `${token}`, of: followed, step: `${step}` };
  const next = `#${new URLSearchParams(state)}`;
  const was = last;
  last = JSON.stringify(place);
  if (next === location.hash) return;
  try {
    history[was && was !== last ? "pushState" : "replaceState"](null, "", next);
  } catch {
    // a frame in a notebook has no address of its own
  }
}
