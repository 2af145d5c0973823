// One head of a short text as lines on a canvas, from the tokens that look (left) to those looked at (right).
import type { Token } from "./data";
import { short } from "./figure";
import { type Marks, pen } from "./matrix";

const STEP = 22; // from token to token
const WIDEST = 540;
const LEAST = 0.04; // of the largest value: what is drawn

/** Where token number `i` stands. */
export const heightOf = (i: number): number => 14 + i * STEP;


export interface Lines {
  /** the width it may take */
  room: number;
  rows: Token[];
  columns: Token[];
  value: (row: number, column: number) => number;
  seen: (row: number, column: number) => boolean;
  most: number;
}

/** Where the lines begin, where they end, and how wide the whole is. */
function places(room: number): [left: number, right: number, width: number] {
  const width = Math.min(Math.max(room, 240), WIDEST);
  return [0.32 * width, 0.68 * width, width];
}

export function drawLines(canvas: HTMLCanvasElement, { room, rows, columns, value, seen, most }: Lines, marks: Marks): void {
  const [left, right, width] = places(room);
  const [it, ink] = pen(canvas, width, STEP * Math.max(rows.length, columns.length) + 8);
  // what is pointed at stands out: a row, else a column, else the followed row
  const chosen = (i: number, j: number): boolean =>
    marks.row >= 0 ? i === marks.row : marks.column >= 0 ? j === marks.column : i === marks.token;
  for (const strong of [false, true]) {
    it.strokeStyle = ink(strong ? "accent" : "bar");
    for (let i = 0; i < rows.length; i++) {
      for (let j = 0; j < columns.length; j++) {
        const share = value(i, j) / most;
        if (!(share >= LEAST) || !seen(i, j) || chosen(i, j) !== strong) continue;
        it.globalAlpha = strong ? 0.25 + 0.75 * share : 0.6 * share;
        it.lineWidth = 0.5 + 3 * share;
        it.beginPath();
        it.moveTo(left, heightOf(i));
        it.bezierCurveTo(left + width / 8, heightOf(i), right - width / 8, heightOf(j), right, heightOf(j));
        it.stroke();
      }
    }
  }
  it.globalAlpha = 1;
  it.textBaseline = "middle";
  const write = (token: Token, place: number, looked: boolean, strong: boolean): void => {
    it.font = `${strong ? "bold " : ""}13px system-ui, sans-serif`;
    it.fillStyle = ink(strong ? "accent" : "ink");
    it.fillText(short(token.label, 20), looked ? right + 8 : left - 8, heightOf(place), left - 8);
  };
  it.textAlign = "right";
  rows.forEach((token, i) => write(token, i, false, i === marks.row || i === marks.token));
  it.textAlign = "left";
  columns.forEach((token, j) => write(token, j, true, j === marks.column));
}

/** The row at the left or the column at the right of a place of the canvas; -1 for the other, both in the middle. */
export function tokenAt(lines: Lines, across: number, down: number): [number, number] {
  const [left, right] = places(lines.room);
  const at = Math.floor((down - heightOf(-0.5)) / STEP);
  return [
    across <= left && at >= 0 && at < lines.rows.length ? at : -1,
    across >= right && at >= 0 && at < lines.columns.length ? at : -1,
  ];
}
