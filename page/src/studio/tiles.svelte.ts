// Tiles of a long text's heads: SIDE x SIDE numbers, each the largest weight of a square of 2^level rows and columns.
// They are asked for when they are looked at, the newest wish first, and held within a bound.
import { color } from "../color";
import type { Packed } from "../data";
import { page } from "../page.svelte";
import { numbers } from "./wire";

export const SIDE = 256;
const MOST_BYTES = 20e6; // of tiles and their pictures: what a screen shows takes up to 8
const AT_ONCE = 3; // requests

export interface Tile {
  values: Uint8Array | Float32Array;
  scale: number;
  rows: number;
  columns: number;
  most: number;
  /** its picture, and what its colours were made for */
  painted?: HTMLCanvasElement;
  paintedFor?: string;
}

/** Which head's tile: `level` doublings, `i` and `j` count tiles of that level. */
export interface Place {
  packed: Packed;
  layer: number;
  head: number;
  level: number;
  i: number;
  j: number;
}

/** The level at which the whole head is one tile. */
export const topLevel = ({ shape }: Packed): number => Math.max(0, Math.ceil(Math.log2(Math.max(shape[2], shape[3]) / SIDE)));

const keyOf = ({ packed, layer, head, level, i, j }: Place): string => `${packed.tensor} ${layer}.${head} ${level} ${i} ${j}`;

class Tiles {
  /** how many came: whoever draws one that is not there waits for it */
  arrived = $state(0);
  error = $state("");
  bytes = 0;
  #held = new Map<string, Tile>();
  #running = new Map<string, AbortController>();
  #wished: Place[] = [];
  #run = ""; // the text whose tiles are here
  #image: ImageData | undefined; // that the last tile was painted in

  /** Whether all that is looked at is here. */
  get idle(): boolean {
    return !this.#running.size && !this.#wished.length;
  }

  /** A tile that is here. */
  held(place: Place): Tile | undefined {
    const key = keyOf(place);
    const tile = this.#held.get(key);
    if (tile) {
      this.#held.delete(key); // the last looked at stands last
      this.#held.set(key, tile);
    }
    return tile;
  }

  /** Says which tiles are looked at; earlier wishes are forgotten, also those on their way, and tiles of other texts. */
  wish(places: Place[]): void {
    const run = places[0]?.packed.tensor?.split("/")[0];
    if (run !== undefined && run !== this.#run) {
      this.#run = run;
      for (const key of [...this.#held.keys()]) if (!key.startsWith(`${run}/`)) this.#drop(key);
    }
    const keys = new Set(places.map(keyOf));
    for (const [key, running] of [...this.#running]) {
      if (keys.has(key)) continue;
      this.#running.delete(key);
      running.abort();
    }
    this.#wished = places.filter((place) => !this.#held.has(keyOf(place)) && !this.#running.has(keyOf(place)));
    this.#go();
  }

  #go(): void {
    while (this.#running.size < AT_ONCE && this.#wished.length) void this.#fetch(this.#wished.shift() as Place);
  }

  async #fetch(place: Place): Promise<void> {
    const key = keyOf(place);
    const { packed, layer, head, level, i, j } = place;
    const every = 2 ** level;
    const part = (at: number): string => `${at * SIDE * every}:${(at + 1) * SIDE * every}`;
    const exact = level === 0;
    const stop = new AbortController();
    this.#running.set(key, stop);
    try {
      const query = `?at=${layer}.${head}&rows=${part(i)}&columns=${part(j)}${exact ? "" : `&every=${every}&dtype=u8`}`;
      const { values, scale, shape } = await numbers(packed.tensor ?? "", query, stop.signal);
      if (stop.signal.aborted) return;
      let most = 0;
      for (const value of values) if (value > most) most = value;
      const [rows, columns] = shape;
      this.#held.set(key, { values, scale, rows, columns, most: most * scale });
      this.bytes += this.#size(rows * columns, values);
      for (const old of this.#held.keys()) {
        if (this.bytes <= MOST_BYTES) break;
        this.#drop(old);
      }
      this.error = "";
      this.arrived++;
    } catch (error) {
      if (stop.signal.aborted) return;
      this.error = error instanceof Error ? error.message : String(error);
      this.#wished = []; // the next drawing wishes again
    } finally {
      if (this.#running.get(key) === stop) this.#running.delete(key);
      this.#go();
    }
  }

  #drop(key: string): void {
    const tile = this.#held.get(key);
    if (!tile) return;
    this.#held.delete(key);
    this.bytes -= this.#size(tile.rows * tile.columns, tile.values);
    if (tile.painted) tile.painted.width = 0; // its pixels are given back at once, not with the next collection
  }

  #size(cells: number, { byteLength }: Uint8Array | Float32Array): number {
    return byteLength + 4 * cells; // its picture has four bytes a cell
  }

  /** The largest weight of a head, and whether the tile that says so is here. */
  most(packed: Packed, layer: number, head: number): number | undefined {
    return this.held({ packed, layer, head, level: topLevel(packed), i: 0, j: 0 })?.most;
  }

  /** The weight at a row and a column, from the finest tile that is here, and of how many rows it is the largest. */
  value(packed: Packed, layer: number, head: number, row: number, column: number): { value: number; every: number } | undefined {
    for (let level = 0; level <= topLevel(packed); level++) {
      const span = SIDE * 2 ** level;
      const [i, j] = [Math.floor(row / span), Math.floor(column / span)];
      const tile = this.#held.get(keyOf({ packed, layer, head, level, i, j }));
      if (!tile) continue;
      const [down, right] = [Math.floor((row - i * span) / 2 ** level), Math.floor((column - j * span) / 2 ** level)];
      return { value: tile.values[down * tile.columns + right] * tile.scale, every: 2 ** level };
    }
    return undefined;
  }

  /** The tile as pixels; colours go by the square root, so that weights of one token in thousands are seen. */
  paint(tile: Tile, most: number): HTMLCanvasElement {
    const made = `${page.dark} ${most}`;
    if (tile.painted && tile.paintedFor === made) return tile.painted;
    const { values, scale, rows, columns } = tile;
    if (this.#image?.width !== columns || this.#image.height !== rows) this.#image = new ImageData(columns, rows);
    const image = this.#image;
    image.data.fill(0);
    const pixels = new Uint32Array(image.data.buffer); // alpha, blue, green, red: browsers' machines are little-endian
    const inks = Array.from({ length: 257 }, (_, i) => {
      const [r, g, b] = color("attention", i / 256);
      return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
    });
    const shade = scale / (most || 1);
    const ink = (value: number): number => inks[Math.min(256, Math.round(256 * Math.sqrt(value * shade)))];
    if (values instanceof Uint8Array) {
      const table = Array.from({ length: 256 }, (_, code) => ink(code));
      for (let at = 0; at < values.length; at++) pixels[at] = table[values[at]];
    } else for (let at = 0; at < values.length; at++) if (values[at] >= 0) pixels[at] = ink(values[at]);
    const canvas = tile.painted ?? document.createElement("canvas");
    [canvas.width, canvas.height] = [columns, rows];
    canvas.getContext("2d")?.putImageData(image, 0, 0);
    [tile.painted, tile.paintedFor] = [canvas, made];
    return canvas;
  }
}

export const tiles = new Tiles();
