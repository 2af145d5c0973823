// Numbers and labels as they are shown.
import type { Figure } from "./data";

const known = (value: Figure): value is number => Number.isFinite(value);

export const percent = (value: Figure): string => (known(value) ? `${(100 * value).toFixed(1)}%` : "not a number");

export const figure = (value: Figure): string =>
  !known(value) ? "not a number" : Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3);

/** At most `most` characters of a label. */
export function short(label: string, most = 16): string {
  const all = [...label];
  return all.length > most ? `${all.slice(0, most - 1).join("")}…` : label;
}

/** The attribution whose scores may be read as numbers: the first that misses 5% or less, else the last with a sum. */
export function soundest(all: { residual: Figure }[]): number {
  const sound = all.findIndex(({ residual }) => residual !== null && residual <= 0.05);
  return Math.max(sound >= 0 ? sound : all.findIndex(({ residual }) => residual === null), 0);
}

/** The nearest index of a list of `count`. */
export const between = (value: number, count: number): number => Math.min(Math.max(value, 0), count - 1);

/** The largest absolute number, 1 where there is none, so that one can divide by it. */
export const largest = (values: Figure[]): number =>
  values.reduce<number>((most, value) => Math.max(most, Math.abs(value ?? 0)), 0) || 1;
