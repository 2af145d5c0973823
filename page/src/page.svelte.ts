// What the reader chose. The views draw themselves from it.
import type { Attention, Run, StripName } from "./data";
import { between, figure, percent, soundest } from "./figure";
import { layOut, type Layout, type Marks } from "./matrix";
import { held, run, strip } from "./run.svelte";
import { matrixOf, rowOf } from "./weights.svelte";

const LONGEST_LINES = 48; // tokens of a text whose heads can be drawn as lines
const system = matchMedia("(prefers-color-scheme: dark)");

export type Theme = "" | "light" | "dark";
export type Form = "matrix" | "lines";
/** What the views of a run are called. */
export const VIEWS: [string, string][] = [
  ["attention", "Attention"],
  ["layers", "Layers"],
  ["attribution", "Attribution"],
  ["answer", "Answer and why"],
];

/** What is drawn of a head: weights, weights times their values' lengths, or shares of the rollout; [rows * columns]. */
export interface Matrix {
  values: Float32Array;
  rows: number;
  columns: number;
  most: number;
}

class Page {
  view = $state("attention");
  /** the names and the words of all views, in their order */
  views = $state.raw(VIEWS);
  /** whether the address speaks of another text */
  strayed = $state(false);
  theme = $state<Theme>("");
  #systemDark = $state(system.matches);
  dark = $derived(this.theme ? this.theme === "dark" : this.#systemDark);

  kind = $state("");
  entry: Attention = $derived(run.attention[this.kind]);
  measure = $state("entropy");
  /** the measure that is shown: some come later than the run */
  shownMeasure = $derived(this.measure in this.entry.measures ? this.measure : "entropy");
  layer = $state(0);
  head = $state(0);
  weighted = $state(false);
  rollout = $state(false);
  form = $state<Form>("matrix");
  /** whether heads are shown as small pictures, not by a measure */
  pictured = $state(false);
  /** whether the table of the head is open */
  tabled = $state(false);
  /** whether the text is so long that its matrices come in tiles */
  isLong = $derived(this.entry.packed.sampled !== undefined);
  hasLines = $derived(!this.isLong && Math.max(...this.entry.packed.shape.slice(2)) <= LONGEST_LINES);
  matrix: Matrix = $derived.by(() => {
    const { packed, rollout, value_norms } = this.entry;
    const [, heads, rows, columns] = packed.shape;
    if (this.isLong) return { values: new Float32Array(), rows, columns, most: 1 };
    let values: Float32Array;
    if (this.rollout && rollout) values = matrixOf(rollout, this.layer);
    else {
      values = matrixOf(packed, this.layer * heads + this.head);
      const norms = this.weighted && value_norms?.[this.layer][this.head];
      if (norms) values = values.map((value, i) => value * (norms[i % columns] ?? NaN));
    }
    return { values, rows, columns, most: values.reduce((a, b) => (b > a ? b : a), 0) || 1 };
  });
  /** whether the matrix's rows sum to 1 */
  isShare = $derived(!this.weighted || this.rollout);

  /** the token that is followed, in the open view's own strip */
  token = $state(0);
  /** the strip whose token is followed through the layers: of an encoder-decoder, either */
  #through = $state<StripName>("tokens");
  followed: StripName = $derived.by(() => {
    if (this.view === "attribution") return "tokens";
    return this.view === "layers" ? this.#through : this.entry.rows;
  });
  /** the row and the column that are pointed at, -1 for none, and whether they stay */
  row = $state(-1);
  column = $state(-1);
  locked = $state(false);
  marks: Marks = $derived({ row: this.row, column: this.column, token: this.token, locked: this.locked });
  /** the token that stands alone, -1 for none, and its strip */
  alone = $state(-1);
  aloneIn = $state<StripName>("tokens");

  /** the attribution that colours the tokens, and the written token whose alternatives are shown */
  method = $state(0);
  step = $state(0);

  /** the width that the matrix may take, and where its parts stand in it */
  room = $state(0);
  layout: Layout = $derived(layOut(strip(this.entry.rows), strip(this.entry.columns), Math.max(this.room, 240)));

  constructor() {
    system.addEventListener("change", () => (this.#systemDark = system.matches));
  }

  /** Shows a run: its own first choices, or, where `keep` says so and they are there, those that were made before. */
  adopt(next: Run, keep = false): void {
    held.current = next;
    this.point(-1, -1);
    this.free();
    if (keep && this.kind in next.attention) {
      this.choose(this.layer, this.head);
      this.token = between(this.token, strip(this.view === "layers" ? this.#through : this.followed).length);
      if (!this.hasLines) this.form = "matrix";
    } else {
      this.kind = next.shown;
      this.measure = "effect" in this.entry.measures ? "effect" : "entropy";
      [this.layer, this.head] = [this.entry.layer, this.entry.head];
      this.#through = next.evidence.lens?.tokens ?? this.entry.rows;
      this.token = this.#first();
    }
    this.method = keep
      ? between(this.method, Math.max(next.evidence.attributions.length, 1))
      : soundest(next.evidence.attributions);
    this.step = between(this.step, Math.max(next.steps.length, 1));
  }

  #first(): number {
    return Math.min(this.entry.rows === "tokens" ? run.token : 1, this.entry.packed.shape[2] - 1);
  }

  /** What a token gives to each other, and the largest that the colours go up to. */
  given(row: number): { values: Float32Array; most: number } {
    const { values, columns, most } = this.matrix;
    if (!this.isLong) return { values: values.subarray(row * columns, (row + 1) * columns), most };
    const [, heads] = this.entry.packed.shape;
    const of = rowOf(this.entry.packed, this.layer * heads + this.head, row) ?? new Float32Array(columns);
    return { values: of, most: of.reduce((a, b) => (b > a ? b : a), 0) || 1 };
  }

  value(row: number, column: number): number {
    return this.matrix.values[row * this.matrix.columns + column];
  }

  /** A value of the matrix in words. */
  amount(value: number): string {
    return this.isShare ? percent(value) : figure(value);
  }

  /** Whether the cell is seen: all are until a token stands alone. */
  seen(row: number, column: number): boolean {
    const { rows, columns } = this.entry;
    if (this.alone < 0) return true;
    return (row === this.alone && rows === this.aloneIn) || (column === this.alone && columns === this.aloneIn);
  }

  open(view: string): void {
    this.view = view;
    const { matrix, followed } = this;
    this.token = between(this.token, view === "attention" ? matrix.rows : strip(followed).length);
  }

  turnTo(kind: string): void {
    const before = this.entry.rows;
    this.kind = kind;
    [this.layer, this.head] = [this.entry.layer, this.entry.head];
    if (before !== this.entry.rows) this.token = this.#first();
    if (!(this.measure in this.entry.measures)) this.measure = "entropy";
    if (!this.hasLines) this.form = "matrix";
    this.weighted &&= Boolean(this.entry.value_norms);
    this.rollout &&= Boolean(this.entry.rollout);
    this.free();
    this.point(-1, -1);
  }

  draw(form: Form): void {
    this.form = form;
    this.free();
    this.point(-1, -1);
  }

  choose(layer: number, head: number): void {
    const [layers, heads] = this.entry.packed.shape;
    this.layer = between(layer, layers);
    this.head = between(head, heads);
  }

  point(row: number, column: number): void {
    this.row = row;
    this.column = column;
  }

  /** A token of a strip was chosen: it is followed, or, among those that are looked at, pointed at. */
  follow(name: StripName, index: number): void {
    if (this.view === "layers") this.#through = name;
    if (name === this.followed) this.token = index;
    else if (this.view === "attention" && name === this.entry.columns) this.point(this.token, index);
  }

  lock(row: number): void {
    this.locked = !this.locked;
    if (this.locked) this.token = row;
  }

  isolate(name: StripName, index: number): void {
    this.alone = this.alone === index && this.aloneIn === name ? -1 : index;
    this.aloneIn = name;
    this.locked = false;
  }

  free(): void {
    this.locked = false;
    this.alone = -1;
  }
}

export const page = new Page();
