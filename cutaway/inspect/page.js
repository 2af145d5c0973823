"use strict";
// Everything shown comes from the JSON block and goes onto the page as text or as pixels, never as markup.
const run = JSON.parse(document.getElementById("run").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const RAMPS = run.ramps;
const state = { kind: run.shown, measure: "entropy", token: run.token, layer: 0, head: 0 };

function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") node.textContent = value;
    else if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// A token or a name in its own direction, so that right-to-left text cannot reorder what is beside it.
const text = (value) => make("bdi", { text: value });
const percent = (value) => `${(100 * value).toFixed(1)}%`;
const strip = (name) => (name === "target" ? run.target : run.tokens);
const attention = () => run.attention[state.kind];

function color(ramp, share) {
  const stops = RAMPS[ramp];
  const place = Math.min(Math.max(dark.matches ? 1 - share : share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  return stops[low].map((from, i) => Math.round(from + (stops[low + 1][i] - from) * (place - low)));
}
const css = (rgb) => `rgb(${rgb.join(",")})`;

// The attention of all heads: one byte per weight, 255 = all of a row. Exact to 1/510.
for (const entry of Object.values(run.attention)) {
  const raw = atob(entry.bytes);
  entry.values = Uint8Array.from(raw, (c) => c.charCodeAt(0));
}
function weight(entry, layer, head, row, column) {
  const [, heads, rows, columns] = entry.shape;
  return entry.values[((layer * heads + head) * rows + row) * columns + column] / 255;
}

// -- the head of the page --------------------------------------------------------------------------------------------
document.title = `cutaway: ${run.text.slice(0, 60)}`;
document.getElementById("text").append(text(run.text));
document.getElementById("model").textContent = run.summary;
document.getElementById("footer").textContent = run.provenance;

// -- answers ---------------------------------------------------------------------------------------------------------
function bar(name, share, number) {
  const fill = make("div", { class: "fill" });
  fill.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
  return make("div", { class: "bar" },
    make("div", { class: "name" }, text(name)),
    make("div", { class: "track", "aria-hidden": "true" }, fill),
    make("div", { class: "number", text: number }));
}

const answers = document.getElementById("answers");
if (run.answers.length) {
  const largest = Math.max(...run.answers.map((a) => Math.abs(a.logit))) || 1;
  const how = { softmax: "softmax of the logits", sigmoid: "sigmoid of each logit", none: "the logits themselves" };
  answers.append(make("h2", { text: run.kind === "labels" ? "Answer" : "Next token" }),
    make("p", { class: "muted", text: how[run.function] || "" }));
  for (const a of [...run.answers].sort((a, b) => b.logit - a.logit)) {
    if (run.function === "none") answers.append(bar(a.label, Math.abs(a.logit) / largest, a.logit.toFixed(3)));
    else answers.append(bar(a.label, a.probability, percent(a.probability)));
  }
} else answers.hidden = true;

const steps = document.getElementById("steps");
if (run.steps.length) {
  const title = run.kind === "mask" ? "Filled in" : "What was generated, the likeliest token each time";
  const body = make("tbody");
  for (const step of run.steps) {
    const rest = step.candidates.filter((c) => c.id !== step.picked.id).slice(0, 4);
    const others = make("td");
    rest.forEach((c, i) => others.append(i ? ", " : "", text(c.label), ` ${percent(c.probability)}`));
    body.append(make("tr", {}, make("td", { class: "number", text: step.position }), make("td", {}, text(step.picked.label)),
      make("td", { class: "number", text: percent(step.picked.probability) }), others));
  }
  steps.append(make("h2", { text: title }));
  if (run.generated) steps.append(make("p", {}, text(run.generated)));
  steps.append(table(["#*", "token", "probability*", "instead of"], body));
} else steps.hidden = true;

function table(names, body) {
  const head = make("tr");
  for (const name of names) {
    const right = name.endsWith("*");
    head.append(make("th", { scope: "col", class: right ? "number" : "", text: right ? name.slice(0, -1) : name }));
  }
  const wrap = make("div", { class: "scroll", tabindex: "0" }, make("table", {}, make("thead", {}, head), body));
  return wrap;
}

// -- the strip of tokens ---------------------------------------------------------------------------------------------
const strips = document.getElementById("strips");
function drawStrips() {
  const entry = attention();
  const again = strips.contains(document.activeElement) ? document.activeElement.dataset.place : null;
  strips.replaceChildren();
  // The strip of the rows chooses a token; the strip of the columns shows where its attention goes.
  const names = entry.rows === entry.columns ? [entry.rows] : [entry.rows, entry.columns];
  for (const name of names) {
    const line = make("div", { class: "strip", role: "group", "aria-label": name === "target" ? "Target tokens" : "Tokens" });
    strip(name).forEach((token, i) => {
      const chosen = name === entry.rows && i === state.token;
      const button = make("button", {
        type: "button", class: token.special ? "special" : token.generated ? "generated" : "",
        "aria-pressed": String(chosen), "data-place": `${name}${i}`, onclick: () => { if (name === entry.rows) { state.token = i; draw(); } },
      }, text(token.label));
      if (name === entry.columns) {
        const share = weight(entry, state.layer, state.head, state.token, i);
        button.style.borderBottomColor = css(color("attention", share));
        button.title = `${percent(share)} of the chosen token's attention`;
      }
      line.append(button);
      if (again === `${name}${i}`) requestAnimationFrame(() => button.focus());
    });
    strips.append(make("p", { class: "muted", text: name === "target" ? "target, written by the decoder" : "" }), line);
  }
}

// -- all heads -------------------------------------------------------------------------------------------------------
const grid = document.getElementById("heads");
const meaning = document.getElementById("meaning");
function drawHeads() {
  const entry = attention();
  const values = entry.measures[state.measure] || entry.measures.entropy;
  const all = values.flat();
  const [low, high] = [Math.min(...all), Math.max(...all)];
  meaning.textContent = `${run.meanings[state.measure]}. Here from ${low.toFixed(2)} to ${high.toFixed(2)}.`;
  const held = grid.contains(document.activeElement);
  const body = make("tbody");
  const top = make("tr", {}, make("td"));
  values[0].forEach((_, j) => top.append(make("th", { scope: "col", text: j })));
  body.append(top);
  values.forEach((row, i) => {
    const line = make("tr", {}, make("th", { scope: "row", text: i }));
    row.forEach((value, j) => {
      const chosen = i === state.layer && j === state.head;
      const button = make("button", {
        type: "button", "aria-pressed": String(chosen), tabindex: chosen ? "0" : "-1",
        "aria-label": `layer ${i}, head ${j}: ${state.measure} ${value.toFixed(2)}`,
        title: `layer ${i}, head ${j}: ${value.toFixed(2)}`,
        onclick: () => choose(i, j),
      });
      button.style.background = css(color("measure", (value - low) / (high - low || 1)));
      line.append(make("td", {}, button));
      if (chosen && held) requestAnimationFrame(() => button.focus());
    });
    body.append(line);
  });
  grid.replaceChildren(make("table", { class: "heads" }, body));
}
function choose(layer, head) {
  const [layers, heads] = attention().shape;
  state.layer = Math.min(Math.max(layer, 0), layers - 1);
  state.head = Math.min(Math.max(head, 0), heads - 1);
  draw();
}
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
grid.addEventListener("keydown", (event) => {
  const step = ARROWS[event.key];
  if (!step) return;
  event.preventDefault();
  choose(state.layer + step[0], state.head + step[1]);
});

// -- one head --------------------------------------------------------------------------------------------------------
const canvas = document.getElementById("matrix");
const readout = document.getElementById("readout");
const box = { x: 0, y: 0, cell: 20, row: -1, column: -1 };
const short = (label) => (label.length > 16 ? `${label.slice(0, 15)}…` : label);

function drawMatrix() {
  const entry = attention();
  const [, , rows, columns] = entry.shape;
  const style = getComputedStyle(document.body);
  const pen = canvas.getContext("2d");
  const font = "13px system-ui, sans-serif";
  pen.font = font;
  const rowLabels = strip(entry.rows).map((t) => short(t.label));
  const columnLabels = strip(entry.columns).map((t) => short(t.label));
  box.x = Math.ceil(Math.max(...rowLabels.map((l) => pen.measureText(l).width))) + 10;
  box.y = Math.ceil(Math.max(...columnLabels.map((l) => pen.measureText(l).width))) + 10;
  const room = canvas.parentElement.clientWidth - box.x - 4;
  box.cell = Math.min(Math.max(Math.floor(room / columns), 15), 36);
  const [width, height] = [box.x + columns * box.cell, box.y + rows * box.cell];
  const scale = Math.min(devicePixelRatio || 1, Math.sqrt(16e6 / (width * height)));
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.font = font;
  pen.textBaseline = "middle";
  let most = 0;
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) most = Math.max(most, weight(entry, state.layer, state.head, i, j));
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      pen.fillStyle = css(color("attention", weight(entry, state.layer, state.head, i, j) / (most || 1)));
      pen.fillRect(box.x + j * box.cell, box.y + i * box.cell, box.cell - 1, box.cell - 1);
    }
  }
  pen.fillStyle = style.color;
  pen.textAlign = "right";
  rowLabels.forEach((label, i) => pen.fillText(label, box.x - 6, box.y + (i + 0.5) * box.cell));
  pen.textAlign = "left";
  columnLabels.forEach((label, j) => {
    pen.save();
    pen.translate(box.x + (j + 0.5) * box.cell, box.y - 6);
    pen.rotate(-Math.PI / 2);
    pen.fillText(label, 0, 0);
    pen.restore();
  });
  pen.strokeStyle = style.getPropertyValue("--accent");
  pen.lineWidth = 2;
  pen.strokeRect(box.x - 1, box.y + state.token * box.cell - 1, columns * box.cell + 1, box.cell + 1);
  if (box.row >= 0) pen.strokeRect(box.x + box.column * box.cell, box.y + box.row * box.cell, box.cell - 1, box.cell - 1);
}

function read(row, column) {
  const entry = attention();
  const [, , rows, columns] = entry.shape;
  box.row = Math.min(Math.max(row, 0), rows - 1);
  box.column = Math.min(Math.max(column, 0), columns - 1);
  const share = weight(entry, state.layer, state.head, box.row, box.column);
  readout.replaceChildren("from ", text(strip(entry.rows)[box.row].label), ` (${box.row}) to `,
    text(strip(entry.columns)[box.column].label), ` (${box.column}): ${(100 * share).toFixed(1)}% of the row`);
  drawMatrix();
}
function cellAt(event) {
  const where = canvas.getBoundingClientRect();
  return [Math.floor((event.clientY - where.top - box.y) / box.cell), Math.floor((event.clientX - where.left - box.x) / box.cell)];
}
canvas.addEventListener("pointermove", (event) => {
  const [row, column] = cellAt(event);
  if (row >= 0 && column >= 0 && (row !== box.row || column !== box.column)) read(row, column);
});
canvas.addEventListener("click", (event) => {
  const [row] = cellAt(event);
  if (row >= 0) { state.token = Math.min(row, attention().shape[2] - 1); draw(); }
});
canvas.addEventListener("keydown", (event) => {
  const step = ARROWS[event.key];
  if (!step) return;
  event.preventDefault();
  read(box.row < 0 ? state.token : box.row + step[0], box.row < 0 ? 0 : box.column + step[1]);
});

// -- how the chosen token's vector changes, and the list of tokens ---------------------------------------------------
const change = document.getElementById("change");
function drawChange() {
  const stack = Object.values(run.states).find((s) => s.tokens === attention().rows);
  change.replaceChildren();
  if (!stack) return;
  const token = strip(stack.tokens)[state.token];
  change.append(make("h2", {}, "How the vector of ", text(token.label), " changes"),
    make("p", { class: "muted", text: "Cosine of the angle to the embedding and to the state before, and the vector's length." }));
  const body = make("tbody");
  stack.places.forEach((place, i) => {
    const cosine = stack.to_embedding[i][state.token];
    body.append(make("tr", {}, make("td", { class: "place", text: place }),
      make("td", { class: "number", text: stack.norm[i][state.token].toFixed(2) }),
      make("td", { class: "number", text: cosine.toFixed(3) }),
      make("td", { class: "number", text: i ? stack.to_previous[i][state.token].toFixed(3) : "" }),
      make("td", { text: stack.first[i][state.token].slice(0, 4).map((x) => x.toFixed(2)).join("  ") + " …", class: "place" })));
  });
  change.append(table(["state", "norm*", "to the embedding*", "to the one before*", "first numbers"], body));
}

const list = document.getElementById("tokens");
function drawTokens() {
  const body = make("tbody");
  for (const token of [...run.tokens, ...run.target]) {
    body.append(make("tr", {}, make("td", { class: "number", text: token.index }), make("td", {}, text(token.label)),
      make("td", { class: "number", text: token.id }),
      make("td", { class: "number", text: token.start === null ? "" : `${token.start}–${token.end}` }),
      make("td", { class: "number", text: token.attention_mask }),
      make("td", { text: token.special ? "special" : token.generated ? "generated" : "" })));
  }
  list.append(make("h2", { text: "Tokens" }), table(["#*", "token", "id*", "characters*", "mask*", ""], body));
}

// -- controls --------------------------------------------------------------------------------------------------------
const kinds = document.getElementById("kind");
for (const name of Object.keys(run.attention)) kinds.append(make("option", { value: name, text: `${name} attention` }));
kinds.parentElement.hidden = kinds.options.length < 2;
kinds.value = state.kind;
kinds.addEventListener("change", () => { show(kinds.value); draw(); });
const measures = document.getElementById("measure");
measures.addEventListener("change", () => { state.measure = measures.value; draw(); });

function show(kind) {
  state.kind = kind;
  const entry = attention();
  [state.layer, state.head] = [entry.layer, entry.head];
  state.token = Math.min(entry.rows === "tokens" ? run.token : state.token, entry.shape[2] - 1);
  measures.replaceChildren();
  for (const name of Object.keys(entry.measures)) measures.append(make("option", { value: name, text: name }));
  if (!(state.measure in entry.measures)) state.measure = "entropy";
  measures.value = state.measure;
}

function draw() {
  const entry = attention();
  box.row = box.column = -1;
  document.getElementById("which").textContent = `Layer ${state.layer}, head ${state.head}`;
  document.getElementById("place").textContent =
    `${entry.address.replace("{i}", state.layer)}, head ${state.head}. Rows look (query), columns are looked at (key); each row sums to 1.`;
  readout.textContent = "Point at a cell, or move with the arrow keys, to read it. Click a row to follow its token.";
  drawStrips();
  drawHeads();
  drawMatrix();
  drawChange();
}

show(run.shown);
drawTokens();
draw();
dark.addEventListener("change", draw);
addEventListener("resize", drawMatrix);
