// base64 -> bytes -> the codes of one matrix -> its values, once: a matrix is read when it is first looked at.
import type { Attention, Packed } from "./data";
import { inflate } from "./inflate";

const read = new WeakMap<Packed, Float32Array[]>();

/** Matrix number `at` of a pack, [rows * columns]; NaN where the model gave no number. */
export function matrixOf(packed: Packed, at: number): Float32Array {
  let held = read.get(packed);
  if (!held) read.set(packed, (held = []));
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

/** The weight from a row to a column of one head. */
export function weight(entry: Attention, layer: number, head: number, row: number, column: number): number {
  const [, heads, , columns] = entry.packed.shape;
  return matrixOf(entry.packed, layer * heads + head)[row * columns + column];
}
