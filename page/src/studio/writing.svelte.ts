// The tree of what was written: each token knows the one before it, so that a branch leaves where another was taken.
import { studio } from "./studio.svelte";
import { events, tensor } from "./wire";

type Top = [id: number, label: string, share: number];

/** What a token gave to others, [heads * tokens], shares from 0 to 255. */
export interface Looked {
  place: string;
  heads: number;
  attention: Uint8Array;
}

interface Coded {
  place: string;
  shape: [number, number];
  attention: string;
}

export interface Watched {
  /** to the tokens before it, and, of an encoder-decoder, to the text that the encoder read */
  own: Looked;
  source?: Looked;
  places: string[];
  lens: [label: string, share: number][][];
}

export interface Node {
  id: number;
  label: string;
  /** null for a token of the prompt */
  probability: number | null;
  entropy: number;
  top: Top[];
  parent: number;
  /** where the tokens after it stand */
  children: number[];
  watched?: Watched;
}

interface Last {
  logits: Float32Array;
  ids: number[];
  labels: string[];
}

const looked = ({ place, shape, attention }: Coded): Looked => ({
  place,
  heads: shape[0],
  attention: Uint8Array.from(atob(attention), (c) => c.charCodeAt(0)),
});

/** The mean over heads, a share for each token. */
export function meanOf({ heads, attention }: Looked): number[] {
  const keys = attention.length / heads;
  return Array.from({ length: keys }, (_, k) => {
    let sum = 0;
    for (let h = 0; h < heads; h++) sum += attention[h * keys + k];
    return sum / (255 * heads);
  });
}

class Writing {
  nodes = $state<Node[]>([]);
  /** the text that an encoder read, and its tokens */
  source = $state.raw<string[]>([]);
  #text = "";
  /** the leaf of the branch that is shown */
  leaf = $state(-1);
  chosen = $state(-1);
  running = $state(false);
  error = $state("");
  rate = $state.raw<{ without: number; with: number | null } | undefined>();
  dropped = $state(0);
  last = $state.raw<Last | undefined>();
  temperature = $state(1);
  topP = $state(1);
  sampled = $state(false);
  tokens = $state(24);
  watch = $state(true);
  layer = $state(0);
  forbidden = $state.raw<{ id: number; label: string }[]>([]);
  #stop: AbortController | undefined;

  /** From the prompt to the leaf. */
  path = $derived.by(() => {
    const found: number[] = [];
    for (let at = this.leaf; at >= 0; at = this.nodes[at].parent) found.push(at);
    return found.reverse();
  });
  /** All branches, by their leaves. */
  leaves = $derived(this.nodes.map((_, i) => i).filter((i) => !this.nodes[i].children.length));

  /** Where a text goes on from each place: the shares of the last step at another temperature and top-p. */
  redrawn = $derived.by(() => {
    if (!this.last) return [];
    const { logits, ids, labels } = this.last;
    const t = Math.max(this.temperature, 0.01);
    const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    let sum = 0;
    for (const logit of logits) sum += Math.exp((logit - most) / t);
    let before = 0;
    return ids.map((id, i) => {
      const share = Math.exp((logits[id] - most) / t) / sum;
      const kept = before < this.topP;
      before += share;
      return { id, label: labels[i], share, kept };
    });
  });

  textOf(leaf: number): string {
    const words: string[] = [];
    for (let at = leaf; at >= 0; at = this.nodes[at].parent) if (this.nodes[at].probability !== null) words.push(this.nodes[at].label);
    return words.reverse().join("");
  }

  /** Begins anew with the text that stands above. */
  async begin(): Promise<void> {
    this.stop();
    [this.nodes, this.leaf, this.chosen, this.last, this.source] = [[], -1, -1, undefined, []];
    this.#text = studio.text;
    await this.#go(-1, {});
  }

  /** Goes on after a node. */
  async goOn(at: number, then = ""): Promise<void> {
    this.stop();
    const ids: number[] = [];
    for (let node = at; node >= 0; node = this.nodes[node].parent) ids.push(this.nodes[node].id);
    await this.#go(at, { ids: ids.reverse(), then });
  }

  /** Takes another token in place of one that was written, and goes on from there. */
  async take(instead: number, [id, label, share]: Top): Promise<void> {
    const { parent, top, entropy } = this.nodes[instead];
    const there = this.nodes[parent].children.find((child) => this.nodes[child].id === id);
    this.leaf = this.chosen = there ?? this.#add({ id, label, probability: share, entropy, top, parent, children: [] });
    if (there === undefined) await this.goOn(this.leaf);
    else while (this.nodes[this.leaf].children.length) this.leaf = this.nodes[this.leaf].children[0];
  }

  /** Puts the reader's own words in place of a token that was written, and goes on from there. */
  async put(instead: number, words: string): Promise<void> {
    if (words) await this.goOn(this.nodes[instead].parent, words);
  }

  show(leaf: number): void {
    this.leaf = leaf;
    this.chosen = leaf;
  }

  stop(): void {
    this.#stop?.abort();
    this.running = false;
  }

  #add(node: Node): number {
    const at = this.nodes.push(node) - 1;
    if (node.parent >= 0) this.nodes[node.parent].children.push(at);
    return at;
  }

  async #go(from: number, start: { ids?: number[]; then?: string }): Promise<void> {
    const stop = (this.#stop = new AbortController());
    [this.running, this.error] = [true, ""];
    let at = from;
    const places = new Map<number, number>(); // position -> node
    const sampling = this.sampled ? { temperature: Math.max(this.temperature, 0.01), top_p: this.topP } : {};
    const forbid = this.forbidden.map(({ id }) => id);
    const body = { model: studio.model, text: this.#text, ...start, tokens: this.tokens, watch: this.watch, layer: this.layer, forbid, ...sampling };
    const told = (name: string, data: Record<string, unknown>): void => {
      if (stop.signal.aborted) return;
      if (name === "start" && from < 0) {
        const { ids, labels, source } = data as { ids: number[]; labels: string[]; source?: string[] };
        this.source = source ?? [];
        ids.forEach((id, i) => {
          at = this.#add({ id, label: labels[i], probability: null, entropy: 0, top: [], parent: at, children: [] });
        });
        this.leaf = at;
      } else if (name === "token") {
        const it = data as { position: number; id: number; label: string; probability: number; entropy: number; top: Top[] };
        at = this.#add({ id: it.id, label: it.label, probability: it.probability, entropy: it.entropy, top: it.top, parent: at, children: [] });
        places.set(it.position, at);
        [this.leaf, this.chosen] = [at, at];
      } else if (name === "watched") {
        const it = data as unknown as Coded & { position: number; places: string[]; lens: Watched["lens"]; source?: Coded };
        const node = places.get(it.position);
        const source = it.source && looked(it.source);
        if (node !== undefined) this.nodes[node].watched = { own: looked(it), source, places: it.places, lens: it.lens };
      } else if (name === "rate") {
        const it = data as { without: number; with: number | null };
        this.rate = { without: it.without, with: it.with ?? this.rate?.with ?? null };
      } else if (name === "last") {
        const it = data as { tensor: string; ids: number[]; labels: string[] };
        void tensor(it.tensor).then((logits) => (this.last = { logits, ids: it.ids, labels: it.labels }));
      } else if (name === "end") {
        this.dropped += data.dropped as number;
        if (data.error) this.error = data.error as string;
      }
    };
    try {
      await events("/studio/write", body, told, stop.signal);
    } catch (error) {
      if (!stop.signal.aborted) this.error = error instanceof Error ? error.message : String(error);
    } finally {
      if (this.#stop === stop) this.running = false;
    }
  }
}

export const writing = new Writing();
