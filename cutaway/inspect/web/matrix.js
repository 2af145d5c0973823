// One head on a canvas: rows look, columns are looked at. The weights are painted once per head; pointing redraws only
// the frame over them.
const canvas = /** @type {HTMLCanvasElement} */ (byId("matrix"));
const box = { x: 0, y: 0, cell: 20, width: 0, height: 0, scale: 1, row: -1, column: -1, painted: null };

function paintHead() {
  const [, , rows, columns] = attention().packed.shape;
  const pixels = new ImageData(columns, rows);
  const { values, most } = shownMatrix();
  const shades = Array.from({ length: 257 }, (_, i) => color("attention", i / 256));
  for (let i = 0, at = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++, at += 4) {
      const rgb = shades[Math.round((256 * values[i * columns + j]) / most)];
      pixels.data.set(rgb, at);
      pixels.data[at + 3] = state.alone < 0 || i === state.alone || j === state.alone ? 255 : 40;
    }
  }
  box.painted = document.createElement("canvas");
  [box.painted.width, box.painted.height] = [columns, rows];
  box.painted.getContext("2d").putImageData(pixels, 0, 0);
}

function drawMatrix() {
  const entry = attention();
  const [, , rows, columns] = entry.packed.shape;
  const pen = canvas.getContext("2d");
  const room = Math.max(byId("matrix-box").clientWidth, 240);
  const labels = (name) => strip(name).map((t) => short(t.label));
  const [rowLabels, columnLabels] = [labels(entry.rows), labels(entry.columns)];
  const font = "12px system-ui, sans-serif";
  pen.font = font;
  const longest = (all) => Math.ceil(Math.max(...all.map((l) => pen.measureText(l).width))) + 10;
  [box.x, box.y] = [longest(rowLabels), longest(columnLabels)];
  box.cell = Math.min(Math.max((room - box.x - 4) / columns, 2), 34);
  if (box.cell > 8) box.cell = Math.floor(box.cell);
  [box.width, box.height] = [box.x + columns * box.cell + 2, box.y + rows * box.cell + 2];
  box.scale = Math.min(devicePixelRatio || 1, Math.sqrt(16e6 / (box.width * box.height)));
  canvas.width = box.width * box.scale;
  canvas.height = box.height * box.scale;
  canvas.style.width = `${box.width}px`;
  canvas.style.height = `${box.height}px`;
  pen.setTransform(box.scale, 0, 0, box.scale, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(box.painted, box.x, box.y, columns * box.cell, rows * box.cell);
  const style = getComputedStyle(document.documentElement);
  if (box.cell >= 9) { // a hair of paper between cells that are large enough
    pen.fillStyle = style.getPropertyValue("--paper");
    for (let j = 1; j <= columns; j++) pen.fillRect(box.x + j * box.cell - 1, box.y, 1, rows * box.cell);
    for (let i = 1; i <= rows; i++) pen.fillRect(box.x, box.y + i * box.cell - 1, columns * box.cell, 1);
  }
  pen.font = font;
  pen.textBaseline = "middle";
  const every = Math.ceil(13 / box.cell); // labels that would overlap are left out; the chosen ones are not
  const marked = (i, at, all) => {
    const near = (k) => k >= 0 && Math.abs(i - k) * box.cell < 13;
    return i === at || (all && i === state.token) || (i % every === 0 && !near(at) && !(all && near(state.token)));
  };
  const ink = (strong) => { pen.fillStyle = style.getPropertyValue(strong ? "--accent" : "--ink"); };
  pen.textAlign = "right";
  rowLabels.forEach((label, i) => {
    if (!marked(i, box.row, true)) return;
    ink(i === box.row || i === state.token);
    pen.fillText(label, box.x - 6, box.y + (i + 0.5) * box.cell);
  });
  pen.textAlign = "left";
  columnLabels.forEach((label, j) => {
    if (!marked(j, box.column, false)) return;
    pen.save();
    pen.translate(box.x + (j + 0.5) * box.cell, box.y - 6);
    pen.rotate(-Math.PI / 2);
    ink(j === box.column);
    pen.fillText(label, 0, 0);
    pen.restore();
  });
  pen.strokeStyle = style.getPropertyValue("--accent");
  pen.lineWidth = state.locked ? 3 : 1.5;
  pen.strokeRect(box.x - 1, box.y + state.token * box.cell - 1, columns * box.cell + 1, box.cell + 1);
  if (box.row < 0) return;
  pen.strokeStyle = style.getPropertyValue("--ink");
  pen.strokeRect(box.x - 1, box.y + box.row * box.cell - 1, columns * box.cell + 1, box.cell + 1);
  pen.strokeRect(box.x + box.column * box.cell - 1, box.y - 1, box.cell + 1, rows * box.cell + 1);
}

function read(row, column) {
  const entry = attention();
  [box.row, box.column] = [between(row, entry.packed.shape[2]), between(column, entry.packed.shape[3])];
  const value = shown(box.row, box.column);
  const parts = [text(strip(entry.rows)[box.row].label), ` (${box.row}) to `, text(strip(entry.columns)[box.column].label),
    ` (${box.column}): `, make("strong", { text: amount(value) }), isShare() ? " of the row" : ", weight times length of the value"];
  if (!isShare()) parts.push(`; weight ${percent(weight(entry, state.layer, state.head, box.row, box.column))}`);
  if (state.locked) parts.push(" (locked)");
  byId("readout").replaceChildren(...parts);
  drawMatrix();
}
function lock(row) {
  state.locked = !state.locked;
  if (state.locked) state.token = row;
  show();
}
function isolate(token) {
  state.alone = state.alone === token ? -1 : token;
  state.locked = false;
  show();
}
function cellAt(event) {
  const where = canvas.getBoundingClientRect();
  const [row, column] = [Math.floor((event.clientY - where.top - box.y) / box.cell), Math.floor((event.clientX - where.left - box.x) / box.cell)];
  const [, , rows, columns] = attention().packed.shape;
  return [row < rows ? row : -1, column < columns ? column : -1];
}
canvas.addEventListener("pointermove", (event) => {
  const [row, column] = cellAt(event);
  if (!state.locked && row >= 0 && column >= 0 && (row !== box.row || column !== box.column)) read(row, column);
});
canvas.addEventListener("click", (event) => {
  const [row, column] = cellAt(event);
  if (row < 0 || event.detail > 1) return;
  if (column >= 0) [box.row, box.column] = [row, column];
  lock(row);
});
canvas.addEventListener("dblclick", (event) => {
  const [row, column] = cellAt(event);
  if (row >= 0 || column >= 0) isolate(row >= 0 ? row : column);
});
arrows(canvas, (down, right) => {
  state.locked = false;
  if (box.row < 0) read(state.token, 0);
  else read(box.row + down, box.column + right);
});
canvas.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && box.row >= 0) lock(box.row);
  else if (event.key === "i" && box.row >= 0) isolate(box.row);
  else if (event.key === "Escape") { state.locked = false; state.alone = -1; show(); }
});

// The same numbers for those who read a table: the whole head where it is short, else the followed token's row.
function drawTable() {
  const place = byId("table-of-head");
  place.replaceChildren();
  if (!byId("as-table").hasAttribute("open")) return;
  const entry = attention();
  const [, , rows, columns] = entry.packed.shape;
  const whole = rows * columns <= 900;
  const head = make("tr", {}, make("td", { text: "from \\ to" }));
  strip(entry.columns).slice(0, columns).forEach((t) => head.append(make("th", { scope: "col" }, text(t.label))));
  const body = make("tbody");
  for (const i of whole ? Array.from({ length: rows }, (_, k) => k) : [state.token]) {
    const line = make("tr", {}, make("th", { scope: "row" }, text(strip(entry.rows)[i].label)));
    for (let j = 0; j < columns; j++) line.append(make("td", { class: "number", text: isShare() ? (100 * shown(i, j)).toFixed(1) : figure(shown(i, j)) }));
    body.append(line);
  }
  const words = `${isShare() ? "Percent of the row" : "Weight times length of the value"}${whole ? "" : ", the followed token only"}`;
  place.append(make("table", {}, make("caption", { class: "muted", text: words }), make("thead", {}, head), body));
}
byId("as-table").addEventListener("toggle", drawTable);
