// Layers x heads, coloured by a measure.
const cells = []; // [layer][head] buttons of the grid that is shown

function makeHeads() {
  const [layers, heads] = attention().packed.shape;
  cells.length = 0;
  const body = make("tbody");
  const line = make("tr", {}, make("td"));
  for (let j = 0; j < heads; j++) line.append(make("th", { scope: "col", text: j }));
  for (let i = 0; i < layers; i++) {
    const row = make("tr", {}, make("th", { scope: "row", text: i }));
    cells.push([]);
    for (let j = 0; j < heads; j++) {
      cells[i].push(make("button", { type: "button", onclick: () => choose(i, j) }));
      row.append(make("td", {}, cells[i][j]));
    }
    body.append(row);
  }
  byId("heads").replaceChildren(make("table", { class: "heads" },
    make("caption", { class: "unseen", text: "Layers by heads; each cell chooses a head" }), make("thead", {}, line), body));
}

function drawHeads() {
  const values = attention().measures[state.measure];
  const all = values.flat();
  const [low, high] = [Math.min(...all), Math.max(...all)];
  byId("meaning").textContent = `${run.meanings[state.measure]}. Here from ${low.toFixed(2)} to ${high.toFixed(2)}.`;
  values.forEach((row, i) => row.forEach((value, j) => {
    const chosen = i === state.layer && (state.rollout || j === state.head);
    const words = `layer ${i}, head ${j}: ${state.measure} ${figure(value)}`;
    const button = cells[i][j];
    button.style.background = css(color("measure", (value - low) / (high - low || 1)));
    button.title = words;
    button.setAttribute("aria-label", words);
    button.setAttribute("aria-pressed", String(chosen));
    button.tabIndex = i === state.layer && j === state.head ? 0 : -1;
  }));
}

function choose(layer, head) {
  const [layers, heads] = attention().packed.shape;
  state.layer = between(layer, layers);
  state.head = between(head, heads);
  show();
}
arrows(byId("heads"), (down, right) => {
  choose(state.layer + down, state.head + right);
  cells[state.layer][state.head].focus();
});

// What is coloured, of which attention, and how.
function makeControls() {
  const choice = (label, names, value, set) => {
    const list = make("select", { onchange: (event) => { set(event.target.value); show(); } });
    for (const [key, words] of names) list.append(make("option", { value: key, text: words }));
    list.value = value;
    return make("label", {}, `${label} `, list);
  };
  const toggle = (label, key) => {
    const box = make("input", { type: "checkbox", onchange: (event) => { state[key] = event.target.checked; show(); } });
    box.checked = state[key];
    return make("span", {}, make("label", {}, box, ` ${label}`), " ", help(key));
  };
  const entry = attention();
  const found = [];
  const kinds = Object.keys(run.attention);
  if (kinds.length > 1) found.push(choice("attention", kinds.map((k) => [k, k]), state.kind, turnTo));
  found.push(choice("heads coloured by", Object.keys(entry.measures).map((m) => [m, m]), state.measure, (m) => { state.measure = m; }));
  if (hasLines()) found.push(choice("drawn as", [["matrix", "matrix"], ["lines", "lines"]], state.form, (f) => { state.form = f; }));
  if (entry.value_norms) found.push(toggle("weighted by values", "weighted"));
  if (entry.rollout) found.push(toggle("rollout up to the layer", "rollout"));
  byId("attention-controls").replaceChildren(...found);
}

function turnTo(kind) {
  const before = attention().rows;
  state.kind = kind;
  const entry = attention();
  [state.layer, state.head] = [entry.layer, entry.head];
  state.locked = false;
  state.alone = -1;
  if (before !== entry.rows) state.token = Math.min(entry.rows === "tokens" ? run.token : 1, entry.packed.shape[2] - 1);
  if (!(state.measure in entry.measures)) state.measure = "entropy";
  if (!hasLines()) state.form = "matrix";
  state.weighted = state.weighted && Boolean(entry.value_norms);
  state.rollout = state.rollout && Boolean(entry.rollout);
  Object.assign(box, { row: -1, column: -1 });
  makeControls();
  makeHeads();
}
