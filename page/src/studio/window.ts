// The window through which a large matrix is seen: where it begins, and how large a cell is on the screen.
import { between } from "../figure";

export const MOST_ZOOM = 26; // CSS pixels of a cell

export interface Window {
  /** the row and the column at the top left, and the CSS pixels of a cell */
  row: number;
  column: number;
  zoom: number;
}

export interface Room {
  rows: number;
  columns: number;
  /** CSS pixels of the map */
  width: number;
  height: number;
}

/** The zoom at which all is seen. */
export const fit = ({ rows, columns, width, height }: Room): number => Math.min(width / columns, height / rows, MOST_ZOOM);

/** The window moved into the matrix, as far as it reaches. */
export function inside({ row, column, zoom }: Window, room: Room): Window {
  const size = Math.min(Math.max(zoom, fit(room)), MOST_ZOOM);
  const least = (at: number, count: number, pixels: number): number => Math.min(Math.max(at, 0), Math.max(count - pixels / size, 0));
  return { row: least(row, room.rows, room.height), column: least(column, room.columns, room.width), zoom: size };
}

/** Larger or smaller around a place of the map, which stays where it is. */
export function zoomed(seen: Window, room: Room, factor: number, across = room.width / 2, down = room.height / 2): Window {
  const zoom = Math.min(Math.max(seen.zoom * factor, fit(room)), MOST_ZOOM);
  return inside({ row: seen.row + down / seen.zoom - down / zoom, column: seen.column + across / seen.zoom - across / zoom, zoom }, room);
}

/** How often rows and columns are halved so that a number is about a pixel of the screen. */
export const levelOf = (zoom: number, top: number): number => between(Math.floor(Math.log2(1 / (zoom * (devicePixelRatio || 1))) + 0.5), top + 1);

/** The window moved so that a cell is in it. */
export function showing(seen: Window, room: Room, row: number, column: number): Window {
  const move = (from: number, at: number, pixels: number): number => {
    const count = pixels / seen.zoom;
    const edge = Math.min(2, count / 4);
    return Math.min(Math.max(from, at + 1 + edge - count), at - edge);
  };
  return inside({ ...seen, row: move(seen.row, row, room.height), column: move(seen.column, column, room.width) }, room);
}
