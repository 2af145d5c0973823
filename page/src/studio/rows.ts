// Tables of texts as people have them: CSV and TSV (RFC 4180), JSON and JSON lines.

export interface Rows {
  names: string[];
  rows: string[][];
}

/** The fields of a CSV, its first line the names; fields in quotes may hold the sign, lines and doubled quotes. */
export function csv(text: string, sign: string): string[][] {
  const found: string[][] = [[]];
  let [field, quoted, at] = ["", false, 0];
  const end = (): void => {
    found[found.length - 1].push(field);
    field = "";
  };
  for (; at < text.length; at++) {
    const letter = text[at];
    if (quoted) {
      if (letter !== '"') field += letter;
      else if (text[at + 1] === '"') field += text[++at];
      else quoted = false;
    } else if (letter === '"' && field === "") quoted = true;
    else if (letter === sign) end();
    else if (letter === "\n") {
      end();
      found.push([]);
    } else if (letter !== "\r" || text[at + 1] !== "\n") field += letter;
  }
  end();
  return found.filter((row) => row.length > 1 || row[0] !== "");
}

const words = (value: unknown): string => (typeof value === "string" ? value : value === null || value === undefined ? "" : JSON.stringify(value));

/** The rows of a file, by the end of its name. */
export function rowsOf(name: string, content: string): Rows {
  const text = content.replace(/^\uFEFF/, "");
  if (/\.jsonl?$/i.test(name)) {
    const whole = name.toLowerCase().endsWith(".json");
    const entries = (whole ? JSON.parse(text) : text.split("\n").filter((line) => line.trim()).map((line) => JSON.parse(line) as unknown)) as Record<string, unknown>[];
    if (!Array.isArray(entries) || !entries.every((entry) => entry && typeof entry === "object")) throw new Error("The file must hold one object a row.");
    const names = [...new Set(entries.flatMap((entry) => Object.keys(entry)))];
    return { names, rows: entries.map((entry) => names.map((key) => words(entry[key]))) };
  }
  if (/\.txt$/i.test(name)) return { names: ["text"], rows: text.split("\n").filter((line) => line.trim()).map((line) => [line]) };
  const [names = [], ...rows] = csv(text, /\.tsv$/i.test(name) ? "\t" : ",");
  return { names, rows: rows.map((row) => names.map((_, i) => row[i] ?? "")) };
}

/** A table as CSV. A field that a spreadsheet would take for a formula is given a quote before it. */
export function asCsv(names: string[], rows: string[][]): string {
  const field = (value: string): string => {
    const safe = /^[=+\-@\t\r]/.test(value) && !/^[-+]?[\d.]+(e[-+]?\d+)?$/i.test(value) ? `'${value}` : value;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [names, ...rows].map((row) => `${row.map(field).join(",")}\r\n`).join("");
}
