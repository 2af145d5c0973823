// A matrix is read when it is first looked at, once: from the page itself (base64 -> bytes -> codes -> values), or, where
// the run only names its tensor, from whoever serves it.
import type { Attention, Packed } from "./data";
import { inflate } from "./inflate";

/** A matrix, or one row of it, [rows * columns]. */
type Ask = (packed: Packed, at: number, row?: number) => Promise<Float32Array>;

const MOST_ROWS = 256; // of long texts, held at a time
const [MOST_BYTES, MOST_READ] = [32e6, 512]; // of matrices that were read: the last looked at stay, others are read again

const read = new WeakMap<Packed, Float32Array[]>();
let looked: { held: Float32Array[]; at: number }[] = []; // the last looked at stands last
const waiting = new WeakMap<Packed, Set<number>>();
let arrived = $state(0); // how many matrices came from elsewhere: whoever draws one that is not there waits for it
let asked: Ask | undefined;

/** All heads of an attention in few pixels, each a share of its own largest weight in 255 steps. */
export interface Pictures {
  values: Uint8Array;
  rows: number;
  columns: number;
}
type AskPictures = (packed: Packed) => Promise<Pictures>;
let askedPictures: AskPictures | undefined;
const pictures = new WeakMap<Packed, Pictures | "coming">();
let pictured = $state(0); // how many sets of them came: they are not painted anew with every row or matrix

/** Says where matrices, their rows and small pictures come from that a run does not hold itself. */
export function matricesFrom(ask: Ask, askPictures: AskPictures): void {
  [asked, askedPictures] = [ask, askPictures];
}

/** The small picture of a head; undefined until it is here. */
export function pictureOf(packed: Packed, at: number): Pictures | undefined {
  void pictured;
  const found = pictures.get(packed);
  if (found === undefined && askedPictures) {
    pictures.set(packed, "coming");
    void askedPictures(packed)
      .then((all) => {
        pictures.set(packed, all);
        pictured++;
      })
      .catch(() => pictures.delete(packed)); // it is asked for again
  }
  if (found === undefined || found === "coming") return undefined;
  const { values, rows, columns } = found;
  return { values: values.subarray(at * rows * columns, (at + 1) * rows * columns), rows, columns };
}

function heldOf(packed: Packed): Float32Array[] {
  let held = read.get(packed);
  if (!held) read.set(packed, (held = []));
  return held;
}

/** Notes that a matrix is looked at, and lets go of those that were not for longest. */
function look(held: Float32Array[], at: number): void {
  const last = looked.at(-1);
  if (last?.held === held && last.at === at) return;
  looked = [...looked.filter((other) => other.held !== held || other.at !== at), { held, at }];
  let bytes = looked.reduce((sum, one) => sum + (one.held[one.at]?.byteLength ?? 0), 0);
  while ((bytes > MOST_BYTES || looked.length > MOST_READ) && looked.length > 1) {
    const [oldest] = looked.splice(0, 1);
    bytes -= oldest.held[oldest.at]?.byteLength ?? 0;
    delete oldest.held[oldest.at];
  }
}

/** Matrix number `at` of a pack, [rows * columns]; NaN where the model gave no number. */
export function matrixOf(packed: Packed, at: number): Float32Array {
  const held = heldOf(packed);
  if (!held[at] && packed.tensor !== undefined) {
    void arrived;
    void fetched(packed, at).catch(() => {}); // it stays empty, and is asked for again
    const [, , rows, columns] = packed.shape;
    return new Float32Array(rows * columns);
  }
  if (!held[at]) {
    const [, , rows, columns] = packed.shape;
    const raw = inflate(
      Uint8Array.from(atob(packed.blocks[at]), (c) => c.charCodeAt(0)),
      2 * rows * columns,
    );
    const values = new Float32Array(rows * columns);
    const wide = raw.length > values.length; // the codes' low bytes, then their high ones
    for (let i = 0; i < values.length; i++) {
      const code = raw[i] | (wide ? raw[values.length + i] << 8 : 0);
      values[i] = packed.broken && code === 65535 ? NaN : code * packed.steps[at];
    }
    held[at] = values;
  }
  look(held, at);
  return held[at];
}

/** Brings a matrix here that is served, if it is not here yet. */
export async function fetched(packed: Packed, at: number): Promise<void> {
  const held = heldOf(packed);
  let under = waiting.get(packed);
  if (!under) waiting.set(packed, (under = new Set()));
  if (held[at] || packed.tensor === undefined || !asked || under.has(at)) return;
  under.add(at);
  try {
    held[at] = await asked(packed, at);
    look(held, at);
    arrived++;
  } finally {
    under.delete(at);
  }
}

const rows = new Map<string, Float32Array>();
const coming = new Set<string>();

/** One row of a matrix [columns]; undefined until it is here, where it comes from elsewhere. */
export function rowOf(packed: Packed, at: number, row: number): Float32Array | undefined {
  const [, , , columns] = packed.shape;
  if (packed.sampled === undefined) return matrixOf(packed, at).subarray(row * columns, (row + 1) * columns);
  void arrived;
  const key = `${packed.tensor} ${at} ${row}`;
  const found = rows.get(key);
  if (found || coming.has(key) || !asked) return found;
  coming.add(key);
  void asked(packed, at, row)
    .then((values) => {
      rows.set(key, values);
      for (const oldest of rows.keys()) if (rows.size > MOST_ROWS) rows.delete(oldest);
      arrived++;
    })
    .catch(() => {}) // it is asked for again
    .finally(() => coming.delete(key));
  return undefined;
}

/** The weight from a row to a column of one head. */
export function weight(entry: Attention, layer: number, head: number, row: number, column: number): number {
  const [, heads, , columns] = entry.packed.shape;
  if (entry.packed.sampled !== undefined) return rowOf(entry.packed, layer * heads + head, row)?.[column] ?? NaN;
  return matrixOf(entry.packed, layer * heads + head)[row * columns + column];
}
