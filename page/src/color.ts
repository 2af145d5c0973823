// The ramps of cutaway/show/palette.py, turned round in the dark.
import type { Color, Figure, Run } from "./data";
import { run } from "./run.svelte";
import { page } from "./page.svelte";

/** The colour of a share from 0 to 1; what is no number has the colour of 0. */
export function color(ramp: keyof Run["ramps"], share: Figure): Color {
  const stops = run.ramps[ramp];
  const known = Math.min(Math.max(share || 0, 0), 1);
  const place = (page.dark ? 1 - known : known) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  return stops[low].map((from, i) => Math.round(from + (stops[low + 1][i] - from) * (place - low))) as Color;
}

/** For scores of both signs: orange for, blue against. */
export const signed = (value: Figure, most: number): Color =>
  color((value ?? 0) < 0 ? "attention" : "measure", 0.7 * Math.min(Math.abs(value ?? 0) / most, 1));

export const css = (rgb: Color): string => `rgb(${rgb.join(",")})`;

const linear = (c: number): number => (c <= 10 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4);

/** Black or white, whichever stands out more from the colour; the worse case is 4.58 to 1 (WCAG asks for 4.5). */
export const inkOn = ([r, g, b]: Color): string =>
  0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) > 0.179 ? "#000" : "#fff";
