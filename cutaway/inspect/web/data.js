// What the page holds. Everything shown comes from the JSON block and goes onto the page as text or as pixels.
const run = JSON.parse(document.getElementById("run").textContent);
const state = { kind: run.shown, measure: "entropy", token: run.token, layer: 0, head: 0, weighted: false, rollout: false,
  form: "matrix", locked: false, alone: -1, step: 0, view: "attention" };

const strip = (name) => (name === "target" ? run.target : run.tokens);
const attention = () => run.attention[state.kind];
const percent = (value) => `${(100 * value).toFixed(1)}%`;
const figure = (value) => (value === null ? "not a number" : Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3));

// base64 -> bytes -> the codes of one head (cutaway/inspect/packing.py), once; value = code * the head's step, true to
// `error`. A head is read when it is first looked at.
function matrixOf(packed, at) {
  packed.read ??= [];
  if (!packed.read[at]) {
    const [rows, columns] = packed.shape.slice(-2);
    const raw = inflate(Uint8Array.from(atob(packed.blocks[at]), (c) => c.charCodeAt(0)), 2 * rows * columns);
    const values = new Float32Array(rows * columns);
    const wide = raw.length > values.length;
    for (let i = 0; i < values.length; i++) values[i] = (raw[i] | (wide ? raw[values.length + i] << 8 : 0)) * packed.steps[at];
    packed.read[at] = values;
    packed.blocks[at] = "";
  }
  return packed.read[at];
}

function weight(entry, layer, head, row, column) {
  const [, heads, , columns] = entry.packed.shape;
  return matrixOf(entry.packed, layer * heads + head)[row * columns + column];
}

// What the matrix shows: weights, weights times their values' lengths, or shares of the rollout; [rows * columns].
let view = { of: "", values: null, most: 1 };
function shownMatrix() {
  const entry = attention();
  const of = [state.kind, state.layer, state.head, state.weighted, state.rollout].join();
  if (view.of !== of) {
    const [, heads, , columns] = entry.packed.shape;
    const rolled = state.rollout && entry.rollout;
    let values = rolled ? matrixOf(entry.rollout, state.layer) : matrixOf(entry.packed, state.layer * heads + state.head);
    if (!rolled && state.weighted && entry.value_norms) {
      const norms = entry.value_norms[state.layer][state.head];
      values = values.map((value, i) => value * norms[i % columns]);
    }
    view = { of, values, most: values.reduce((a, b) => Math.max(a, b), 0) || 1 };
  }
  return view;
}
const shown = (row, column) => shownMatrix().values[row * attention().packed.shape[3] + column];
const largest = () => shownMatrix().most;
const isShare = () => !(state.weighted && !state.rollout);
const amount = (value) => (isShare() ? percent(value) : figure(value));

// Colours: the ramps of cutaway/show/palette.py, turned round in the dark.
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
function color(ramp, share) {
  const stops = run.ramps[ramp];
  const place = Math.min(Math.max(isDark() ? 1 - share : share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  return stops[low].map((from, i) => Math.round(from + (stops[low + 1][i] - from) * (place - low)));
}
const css = (rgb) => `rgb(${rgb.join(",")})`;

// Black or white, whichever stands out more from the colour; the worse case is 4.58 to 1 (WCAG asks for 4.5).
const linear = (c) => (c <= 10 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4);
const inkOn = ([r, g, b]) => (0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) > 0.179 ? "#000" : "#fff");
// For scores of both signs: orange for, blue against.
const signed = (value, most) => color(value < 0 ? "attention" : "measure", 0.7 * Math.min(Math.abs(value) / (most || 1), 1));
