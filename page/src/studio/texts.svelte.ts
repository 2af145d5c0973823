// The table of texts: its rows, what the model says of each, and which of them are shown.
import { type Rows, asCsv, rowsOf } from "./rows";
import { studio } from "./studio.svelte";
import { ask, events, file, offer } from "./wire";

interface Coloured {
  labels: string[];
  scores: (number | null)[];
}

class Texts {
  name = $state("");
  given = $state.raw<Rows>({ names: [], rows: [] });
  column = $state(0);
  /** the column that holds the truth, -1 for none, and that colours the map */
  truth = $state(-1);
  by = $state(-1);
  labels = $state.raw<string[]>([]);
  shares = $state.raw<number[][]>([]);
  points = $state.raw<[number, number][]>([]);
  axes = $state.raw<number[]>([]);
  plane = $state<"pca" | "umap">("pca");
  sorted = $state<"" | "least" | "most">("");
  only = $state<"all" | "mistakes">("all");
  /** a cell of the confusion that is looked at, and the rows that were drawn around on the map */
  cell = $state.raw<[string, string] | undefined>();
  drawn = $state.raw<Set<number> | undefined>();
  running = $state(false);
  error = $state("");
  coloured = $state.raw<Record<number, Coloured>>({});
  #stop: AbortController | undefined;

  best = $derived(this.shares.map((row) => row.indexOf(Math.max(...row))));
  said = $derived(this.best.map((at) => this.labels[at] ?? ""));
  true = $derived(this.truth < 0 ? [] : this.given.rows.map((row) => this.#known(row[this.truth])));
  wrong = $derived(this.said.map((label, i) => this.truth >= 0 && this.true[i] !== label));
  confusion = $derived.by(() => {
    const found = new Map<string, number>();
    this.said.forEach((label, i) => {
      const key = JSON.stringify([this.true[i], label]);
      found.set(key, (found.get(key) ?? 0) + 1);
    });
    return found;
  });
  truths = $derived([...new Set([...this.labels, ...this.true.slice(0, this.said.length)])]);
  accuracy = $derived(this.said.length ? this.wrong.filter((it) => !it).length / this.said.length : 0);
  shown = $derived.by(() => {
    const confidence = (i: number): number => this.shares[i]?.[this.best[i]] ?? 0;
    const kept = this.given.rows
      .map((_, i) => i)
      .filter((i) => this.only === "all" || this.wrong[i])
      .filter((i) => !this.cell || (this.true[i] === this.cell[0] && this.said[i] === this.cell[1]))
      .filter((i) => !this.drawn || this.drawn.has(i));
    if (!this.sorted) return kept;
    return kept.sort((a, b) => (confidence(a) - confidence(b)) * (this.sorted === "least" ? 1 : -1));
  });

  /** A label of the file as the model calls it: by its name in any case, or by its number. */
  #known(value: string): string {
    const found = this.labels.find((label) => label.toLowerCase() === value.trim().toLowerCase());
    return found ?? (/^\d+$/.test(value) ? this.labels[Number(value)] : undefined) ?? value;
  }

  async open(file: File): Promise<void> {
    this.stop();
    this.error = "";
    try {
      const given = rowsOf(file.name, await file.text());
      if (!given.rows.length) throw new Error(`${file.name} holds no rows.`);
      [this.name, this.given] = [file.name, given];
    } catch (problem) {
      this.error = problem instanceof Error ? problem.message : String(problem);
      return;
    }
    const find = (pattern: RegExp): number => this.given.names.findIndex((name) => pattern.test(name));
    this.column = Math.max(find(/^(text|sentence|review|body|content)$/i), 0);
    this.truth = find(/^(label|labels|class|target|stars|sentiment)$/i);
    this.by = this.truth;
    this.#clear();
  }

  #clear(): void {
    [this.shares, this.points, this.coloured, this.cell, this.drawn] = [[], [], {}, undefined, undefined];
  }

  async run(): Promise<void> {
    this.stop();
    this.#clear();
    const stop = (this.#stop = new AbortController());
    [this.running, this.error] = [true, ""];
    const texts = this.given.rows.map((row) => row[this.column]);
    try {
      await events(
        "/studio/table",
        { model: studio.model, texts, plane: this.plane },
        (name, data) => {
          if (name === "start") this.labels = data.labels as string[];
          else if (name === "rows") this.shares = [...this.shares, ...(data.shares as number[][])];
          else if (name === "map") [this.points, this.axes] = [data.points as [number, number][], data.shares as number[]];
          else if (name === "end" && data.error) this.error = data.error as string;
        },
        stop.signal,
      );
    } catch (problem) {
      if (!stop.signal.aborted) this.error = problem instanceof Error ? problem.message : String(problem);
    } finally {
      if (this.#stop === stop) this.running = false;
    }
  }

  stop(): void {
    this.#stop?.abort();
    this.running = false;
  }

  /** The words of a row, coloured by what moved its answer: gradient times input. */
  async color(at: number): Promise<void> {
    const text = this.given.rows[at][this.column];
    try {
      const { run } = await ask<{ run: { tokens: { label: string }[]; evidence: { attributions: Coloured[] } } }>("/studio/run", { model: studio.model, text, views: ["typing"] });
      const scores = run.evidence.attributions[0]?.scores ?? [];
      this.coloured = { ...this.coloured, [at]: { labels: run.tokens.map(({ label }) => label), scores } };
    } catch (problem) {
      this.error = problem instanceof Error ? problem.message : String(problem);
    }
  }

  /** The report of `cutaway evaluate --report`, of all rows. */
  async report(): Promise<void> {
    this.error = "";
    const body = { model: studio.model, name: this.name, texts: this.given.rows.map((row) => row[this.column]), labels: this.true };
    try {
      offer(await file("/studio/report", body), "report.html");
    } catch (problem) {
      this.error = problem instanceof Error ? problem.message : String(problem);
    }
  }

  save(): void {
    const names = [...this.given.names, "model_label", "model_confidence", ...this.labels.map((label) => `share_${label}`)];
    const rows = this.shown.map((i) => [
      ...this.given.rows[i],
      this.said[i] ?? "",
      String(this.shares[i]?.[this.best[i]] ?? ""),
      ...(this.shares[i] ?? []).map(String),
    ]);
    offer(new Blob([asCsv(names, rows)], { type: "text/csv" }), "studio.csv");
  }
}

export const texts = new Texts();
