// What the studio holds beside the page of a run: which model reads which text, and what was asked of it. The address
// says all of it, so that going back, reloading and a copied link work.
import type { Evidence, Run } from "../data";
import { page, VIEWS } from "../page.svelte";
import { held } from "../run.svelte";
import { fetched, matricesFrom } from "../weights.svelte";
import { ask, numbers, takeKey, tensor } from "./wire";

export interface Model {
  name: string;
  label: string;
  task: string;
  open: boolean;
}

export interface Change {
  kind: "head" | "cross" | "neuron" | "attention" | "mlp" | "layer" | "patch" | "steer" | "feature" | "boost";
  layer?: number;
  unit?: number;
  scale?: number;
  sae?: string;
  tower?: "" | "encoder" | "decoder";
  address?: string;
  text?: string;
  position?: number;
  plus?: string[];
  minus?: string[];
}

type Words = Pick<Run, "meanings" | "guide" | "ramps">;
type View = "attention" | "layers" | "attribution" | "answer" | "typing";
type LiveEvidence = Evidence & { has: View[] };
interface Read {
  id: string;
  run: Omit<Run, keyof Words>;
}
interface More {
  id: string;
  evidence: Evidence;
  attention: Record<string, Partial<Pick<Run["attention"][string], "value_norms" | "measures" | "rollout">>>;
}

const IDLE = 350; // ms without a key until what takes long is asked for
const FIRST_TEXT: Record<string, string> = {
  "text-classification": "I believe that the EU is trustworthy.",
  "text-generation": "The capital of France is",
  "fill-mask": "Paris is the [MASK] of France.",
};

class Studio {
  models = $state.raw<Model[]>([]);
  model = $state("");
  text = $state("");
  /** of the run that is shown: its name on the server, its text, and how long it took from the key to the screen */
  id = $state("");
  shownText = $state("");
  latency = $state(0);
  waiting = $state(false);
  error = $state("");
  changes = $state.raw<Change[]>([]);
  version = "";
  /** numbers of texts: the last that was typed, and the last that was shown; how many were overtaken before they ran */
  typed = 0;
  shown = $state(0);
  overtaken = 0;
  /** when the first run was shown, in ms after the page was opened */
  first = 0;
  #words: Words = { meanings: {}, guide: {} as Words["guide"], ramps: { attention: [], measure: [] } };
  #running: AbortController | undefined;
  #next: { number: number; at: number } | undefined;
  #later: ReturnType<typeof setTimeout> | undefined;
  #model = ""; // whose run is shown
  #wanted: Record<string, string> = {}; // what the address says of a run that is not there yet

  async begin(): Promise<void> {
    takeKey();
    matricesFrom((packed, at, row) => {
      const heads = packed.shape[1];
      const part = row === undefined ? "" : `&rows=${row}:${row + 1}`;
      return tensor(packed.tensor ?? "", `?at=${Math.floor(at / heads)}.${at % heads}${part}`);
    }, async (packed) => {
      const { values, shape } = await numbers(`${packed.tensor}.pictures`, "?dtype=u8");
      return { values: values as Uint8Array, rows: shape[2], columns: shape[3] };
    });
    page.views = [...VIEWS, ["write", "Write on"], ["lab", "Lab"], ["compare", "Compare"], ["texts", "Texts"], ["training", "Training"], ["keep", "Keep"]];
    try {
      const start = await ask<{ models: Model[]; words: Words; version: string }>("/studio/start");
      [this.models, this.#words, this.version] = [start.models, start.words, start.version];
    } catch (error) {
      this.#fail(error);
      return;
    }
    addEventListener("popstate", () => this.#read());
    this.#read();
  }

  /** Does what the address says. */
  #read(): void {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    const model = given.model ?? this.model ?? "";
    this.model = this.models.some(({ name }) => name === model) ? model : this.models[0].name;
    const task = this.models.find(({ name }) => name === this.model)?.task ?? "";
    this.text = given.text ?? (this.text || FIRST_TEXT[task] || "A great film.");
    if (given.view && page.views.some(([name]) => name === given.view)) page.view = given.view;
    this.#wanted = given;
    this.read();
  }

  /** The address of what is shown; a new entry for going back where `step` says so. */
  address(step = false): void {
    if (!this.id) return;
    const { kind, layer, head, token, view } = page;
    const state = { model: this.model, text: this.text, view, attention: kind, layer: `${layer}`, head: `${head}`, token: `${token}` };
    const next = `#${new URLSearchParams(state)}`;
    if (next !== location.hash) history[step ? "pushState" : "replaceState"](null, "", next);
  }

  choose(model: string): void {
    this.address(true);
    this.model = model;
    this.changes = [];
    this.#running?.abort();
    this.read();
  }

  change(changes: Change[]): void {
    this.changes = changes;
    this.read();
  }

  /** Opens a state that was kept. */
  open({ state, changes }: { state: string; changes: Change[] }): void {
    this.address(true);
    this.changes = changes;
    history.pushState(null, "", `#${state}`);
    this.#read();
  }

  /** Reads the text as it stands: at once where nothing runs, else when what runs is done, if nothing newer came. */
  read(): void {
    clearTimeout(this.#later);
    if (this.#next) this.overtaken++;
    this.#next = { number: ++this.typed, at: performance.now() };
    if (!this.#running) void this.#go();
  }

  async #go(): Promise<void> {
    while (this.#next) {
      const { number, at } = this.#next;
      this.#next = undefined;
      const running = (this.#running = new AbortController());
      const [model, text, changes] = [this.model, this.text, this.changes];
      if (!text.trim()) break;
      this.waiting = true;
      try {
        const views = page.view === "attribution" ? ["typing"] : page.view === "layers" || page.view === "answer" ? [page.view] : [];
        const found = await ask<Read>("/studio/run", { model, text, views, changes }, running.signal);
        const run = { ...found.run, ...this.#words } as Run;
        const keep = this.#model === model;
        // what will be looked at comes before the run is shown, so that no empty matrix flashes
        const entry = run.attention[keep && page.kind in run.attention ? page.kind : run.shown];
        const [layers, heads] = entry.packed.shape;
        const [layer, head] = keep && page.kind in run.attention ? [page.layer, page.head] : [entry.layer, entry.head];
        if (entry.packed.sampled === undefined) await fetched(entry.packed, Math.min(layer, layers - 1) * heads + Math.min(head, heads - 1));
        if (running.signal.aborted) continue;
        page.adopt(run, keep);
        this.#model = model;
        [this.id, this.shownText, this.error, this.shown] = [found.id, text, "", number];
        if (Object.keys(this.#wanted).length) this.#take();
        document.title = `cutaway studio: ${text.slice(0, 60)}`;
        requestAnimationFrame(() => {
          this.latency = performance.now() - at;
          this.first ||= performance.now();
        });
        this.address();
      } catch (error) {
        if (!running.signal.aborted) this.#fail(error);
      } finally {
        this.waiting = false;
        document.documentElement.dataset.ready = "yes";
      }
    }
    this.#running = undefined;
    this.#later = setTimeout(() => void this.evidence(), IDLE);
  }

  /** Layer, head and token as the address had them. */
  #take(): void {
    const { attention, layer, head, token } = this.#wanted;
    if (attention && attention in held.current.attention && attention !== page.kind) page.turnTo(attention);
    if (layer !== undefined || head !== undefined) page.choose(Number(layer ?? page.layer) || 0, Number(head ?? page.head) || 0);
    if (token !== undefined) page.follow(page.followed, Math.min(Math.max(Number(token) || 0, 0), page.matrix.rows - 1));
    this.#wanted = {};
  }

  /** Asks for what the open view shows beside the run, where that has not come yet. */
  async evidence(): Promise<void> {
    const view = page.view as View;
    const before = held.current;
    if (!this.id || !["attention", "layers", "attribution", "answer"].includes(view)) return;
    const has = (before.evidence as LiveEvidence).has;
    if (has.includes(view)) return;
    const id = this.id;
    try {
      const { evidence, attention } = await ask<More>("/studio/more", { id, view });
      if (this.id !== id) return;
      const now = held.current;
      const old = now.evidence as LiveEvidence;
      const merged: LiveEvidence = {
        answer: evidence.answer || old.answer,
        number: evidence.number,
        missing: { ...old.missing, ...evidence.missing },
        lens: evidence.lens ?? old.lens,
        attributions: evidence.attributions.length ? evidence.attributions : old.attributions,
        parts: evidence.parts ?? old.parts,
        planes: { ...old.planes, ...evidence.planes },
        branches: old.branches,
        has: [...old.has, view],
      };
      const entries = Object.entries(now.attention).map(([name, entry]) => [name, { ...entry, ...attention[name] }]);
      held.current = { ...now, evidence: merged, attention: Object.fromEntries(entries) as Run["attention"] };
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.error = error instanceof Error ? error.message : String(error);
    document.documentElement.dataset.ready = "yes";
  }
}

export const studio = new Studio();
