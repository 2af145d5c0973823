// One head on a canvas: rows look, columns are looked at. The weights are painted once per head, a pixel each; pointing
// draws that picture again, larger, with the frames and labels around it.
import type { Color, Token } from "./data";
import { short } from "./figure";

const FONT = "12px system-ui, sans-serif";
const MOST_PIXELS = 16e6;

/** Where the cells stand: from (x, y), each `cell` wide and high; the labels are beside and above. */
export interface Layout {
  rows: string[];
  columns: string[];
  x: number;
  y: number;
  cell: number;
  width: number;
  height: number;
}

/** What is marked: the pointed row and column (-1: none) and the followed row. */
export interface Marks {
  row: number;
  column: number;
  token: number;
  locked: boolean;
}

const ruler = document.createElement("canvas").getContext("2d") as CanvasRenderingContext2D;

export function layOut(rowTokens: Token[], columnTokens: Token[], room: number): Layout {
  const [rows, columns] = [rowTokens, columnTokens].map((tokens) => tokens.map((token) => short(token.label)));
  ruler.font = FONT;
  const longest = (labels: string[]): number =>
    Math.ceil(labels.reduce((most, label) => Math.max(most, ruler.measureText(label).width), 0)) + 10;
  const [x, y] = [longest(rows), longest(columns)];
  let cell = Math.min(Math.max((room - x - 4) / columns.length, 2), 34);
  if (cell > 8) cell = Math.floor(cell);
  return { rows, columns, x, y, cell, width: x + columns.length * cell + 2, height: y + rows.length * cell + 2 };
}

/** The values as pixels, `shades` from 0 to the largest; those that are not seen are pale, what is no number is left out. */
export function paint(
  values: Float32Array,
  [rows, columns]: [number, number],
  most: number,
  shades: Color[],
  seen: (row: number, column: number) => boolean,
): HTMLCanvasElement {
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer); // alpha, blue, green, red: browsers' machines are little-endian
  const inks = shades.map(([r, g, b]) => (b << 16) | (g << 8) | r);
  const scale = (shades.length - 1) / most;
  for (let i = 0, at = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++, at++) {
      if (values[at] >= 0) pixels[at] = inks[Math.round(values[at] * scale)] | ((seen(i, j) ? 255 : 40) << 24);
    }
  }
  const painted = document.createElement("canvas");
  [painted.width, painted.height] = [columns, rows];
  painted.getContext("2d")?.putImageData(image, 0, 0);
  return painted;
}

/** The context of a canvas of this size in CSS pixels, sharp on this screen; its colours are the page's variables. */
export function pen(
  canvas: HTMLCanvasElement,
  width: number,
  height: number,
): [CanvasRenderingContext2D, (name: string) => string] {
  const scale = Math.min(devicePixelRatio || 1, Math.sqrt(MOST_PIXELS / (width * height)));
  const found = canvas.getContext("2d") as CanvasRenderingContext2D;
  const [wide, high] = [Math.floor(width * scale), Math.floor(height * scale)];
  // a canvas that is given its size anew takes memory anew, which pointing at it would do at every move
  if (canvas.width === wide && canvas.height === high && "reset" in found) found.reset();
  else [canvas.width, canvas.height] = [wide, high];
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  found.setTransform(scale, 0, 0, scale, 0, 0);
  const style = getComputedStyle(document.documentElement);
  return [found, (name) => style.getPropertyValue(`--${name}`)];
}

export function drawMatrix(
  canvas: HTMLCanvasElement,
  painted: HTMLCanvasElement,
  layout: Layout,
  marks: Marks,
): void {
  const { rows, columns, x, y, cell } = layout;
  const [wide, high] = [columns.length * cell, rows.length * cell];
  const [it, ink] = pen(canvas, layout.width, layout.height);
  it.imageSmoothingEnabled = false;
  it.drawImage(painted, x, y, wide, high);
  if (cell >= 9) {
    it.fillStyle = ink("paper"); // a hair of paper between cells that are large enough
    for (let j = 1; j <= columns.length; j++) it.fillRect(x + j * cell - 1, y, 1, high);
    for (let i = 1; i <= rows.length; i++) it.fillRect(x, y + i * cell - 1, wide, 1);
  }
  it.font = FONT;
  it.textBaseline = "middle";
  const every = Math.ceil(13 / cell); // labels that would overlap are left out; the marked ones are not
  const shown = (i: number, marked: number[]): boolean =>
    marked.includes(i) || (i % every === 0 && !marked.some((k) => k >= 0 && Math.abs(i - k) * cell < 13));
  it.textAlign = "right";
  rows.forEach((label, i) => {
    const marked = [marks.row, marks.token];
    if (!shown(i, marked)) return;
    it.fillStyle = ink(marked.includes(i) ? "accent" : "ink");
    it.fillText(label, x - 6, y + (i + 0.5) * cell);
  });
  it.textAlign = "left";
  columns.forEach((label, j) => {
    if (!shown(j, [marks.column])) return;
    it.save();
    it.translate(x + (j + 0.5) * cell, y - 6);
    it.rotate(-Math.PI / 2);
    it.fillStyle = ink(j === marks.column ? "accent" : "ink");
    it.fillText(label, 0, 0);
    it.restore();
  });
  it.strokeStyle = ink("accent");
  it.lineWidth = marks.locked ? 3 : 1.5;
  it.strokeRect(x - 1, y + marks.token * cell - 1, wide + 1, cell + 1);
  it.strokeStyle = ink("ink");
  if (marks.row >= 0) it.strokeRect(x - 1, y + marks.row * cell - 1, wide + 1, cell + 1);
  if (marks.column >= 0) it.strokeRect(x + marks.column * cell - 1, y - 1, cell + 1, high + 1);
}

/** The row and the column under a place of the canvas; -1 for those that it is beside. */
export function cellAt({ rows, columns, x, y, cell }: Layout, across: number, down: number): [number, number] {
  const within = (at: number, count: number): number => (at >= 0 && at < count ? at : -1);
  return [within(Math.floor((down - y) / cell), rows.length), within(Math.floor((across - x) / cell), columns.length)];
}
