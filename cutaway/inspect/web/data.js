// What the page holds. Everything shown comes from the JSON block and goes onto the page as text or as pixels.
const run = JSON.parse(document.getElementById("run").textContent);
const state = { kind: run.shown, measure: "entropy", token: run.token, layer: 0, head: 0, weighted: false, rollout: false,
  form: "matrix", locked: false, alone: -1, step: 0, view: "attention" };

const strip = (name) => (name === "target" ? run.target : run.tokens);
const attention = () => run.attention[state.kind];
const percent = (value) => `${(100 * value).toFixed(1)}%`;
const figure = (value) => (value === null ? "not a number" : Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3));

// base64 -> bytes -> the codes of cutaway/inspect/packing.py; value = code * step, true to `error`.
async function unpacked(packed) {
  const planes = await Promise.all(packed.bytes.map(async (text) => {
    const characters = atob(text);
    const raw = new Uint8Array(characters.length);
    for (let i = 0; i < raw.length; i++) raw[i] = characters.charCodeAt(i);
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }));
  if (planes.length === 1) return planes[0];
  const codes = new Uint16Array(planes[0].length);
  for (let i = 0; i < codes.length; i++) codes[i] = planes[0][i] | (planes[1][i] << 8);
  return codes;
}

async function unpackAll() {
  for (const entry of Object.values(run.attention)) {
    entry.shape = entry.packed.shape;
    entry.codes = await unpacked(entry.packed);
    entry.packed.bytes = null;
    if (entry.rollout) {
      entry.rollout.codes = await unpacked(entry.rollout);
      entry.rollout.bytes = null;
    }
  }
}

function weight(entry, layer, head, row, column) {
  const [, heads, rows, columns] = entry.shape;
  return entry.codes[((layer * heads + head) * rows + row) * columns + column] * entry.packed.step;
}

// What the matrix shows at one place: a weight, a weight times its value's length, or a share of the rollout.
function shown(row, column) {
  const entry = attention();
  if (state.rollout && entry.rollout) {
    const [, , rows, columns] = entry.rollout.shape;
    return entry.rollout.codes[(state.layer * rows + row) * columns + column] * entry.rollout.step;
  }
  const share = weight(entry, state.layer, state.head, row, column);
  return state.weighted && entry.value_norms ? share * entry.value_norms[state.layer][state.head][column] : share;
}
const isShare = () => !(state.weighted && !state.rollout);
const amount = (value) => (isShare() ? percent(value) : figure(value));
function largest() {
  const [, , rows, columns] = attention().shape;
  let most = 0;
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) most = Math.max(most, shown(i, j));
  return most || 1;
}

// Colours: the ramps of cutaway/inspect/palette.py, turned round in the dark.
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
