// A matrix is read when it is first looked at, once: from the page itself (base64 -> bytes -> codes -> values), or, where
// the run only names its tensor, from whoever serves it.
import type { Attention, Packed } from "./data";
import { inflate } from "./inflate";

type Ask = (packed: Packed, at: number) => Promise<Float32Array>;

const read = new WeakMap<Packed, Float32Array[]>();
const waiting = new WeakMap<Packed, Set<number>>();
let arrived = $state(0); // how many matrices came from elsewhere: whoever draws one that is not there waits for it
let asked: Ask | undefined;

/** Says where matrices come from that a run does not hold itself. */
export function matricesFrom(ask: Ask): void {
  asked = ask;
}

function heldOf(packed: Packed): Float32Array[] {
  let held = read.get(packed);
  if (!held) read.set(packed, (held = []));
  return held;
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
    packed.blocks[at] = "";
  }
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
    arrived++;
  } finally {
    under.delete(at);
  }
}

/** The weight from a row to a column of one head. */
export function weight(entry: Attention, layer: number, head: number, row: number, column: number): number {
  const [, heads, , columns] = entry.packed.shape;
  return matrixOf(entry.packed, layer * heads + head)[row * columns + column];
}
