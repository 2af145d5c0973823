// Through the layers: how the followed token's vector changes, and what the lens reads from each state.
function drawLayers() {
  const found = [];
  const stack = Object.values(run.states).find((s) => s.tokens === followed());
  if (stack) {
    const token = strip(stack.tokens)[between(state.token, stack.norm[0].length)];
    const at = token.index;
    const of = (values) => values.map((row) => row[at]);
    found.push(heading(["How the vector of ", text(token.label), " changes"], "states"));
    const key = make("p", { class: "muted key" }, make("span", { class: "mark first" }), " cosine to the embedding ",
      make("span", { class: "mark second" }), " cosine to the state before");
    const angles = [...of(stack.to_embedding), ...of(stack.to_previous)];
    const low = Math.min(0, Math.floor(4 * Math.min(...angles)) / 4);
    const norms = of(stack.norm);
    found.push(make("div", { class: "columns" },
      make("div", {}, key, lineChart("Cosines by layer", [{ name: "first", values: of(stack.to_embedding) }, { name: "second", values: of(stack.to_previous) }], stack.places, low, 1)),
      make("div", {}, make("p", { class: "muted key" }, make("span", { class: "mark first" }), " length of the vector"),
        lineChart("Length by layer", [{ name: "first", values: norms }], stack.places, 0, Math.max(...norms) * 1.05))));
    found.push(make("details", {}, make("summary", { text: "The same as a table" }),
      table("States of the followed token", ["state", "cosine to embedding*", "cosine to state before*", "length*"],
        stack.places.map((place, i) => [place, figure(stack.to_embedding[i][at]), figure(stack.to_previous[i][at]), figure(stack.norm[i][at])]))));
  }
  const plane = stack && run.evidence.planes[stack.name];
  if (plane) found.push(heading(["Where ", text(strip(stack.tokens)[between(state.token, stack.norm[0].length)].label), " goes"], "plane"), trajectory(plane, stack));
  const lens = run.evidence.lens;
  if (lens) found.push(heading("What each layer would say: logit lens", "lens"), lensGrid(lens));
  else if (run.evidence.missing.lens) found.push(make("p", { class: "muted", text: `No lens: ${run.evidence.missing.lens}` }));
  byId("view-layers").replaceChildren(...found);
}

// The followed token's path in the plane of most variance, from the embedding (hollow) to the last state; the other
// tokens' last states are dots.
function trajectory(plane, stack) {
  const [width, height, edge] = [560, 360, 24];
  const at = between(state.token, stack.norm[0].length);
  const all = plane.points.flat();
  const span = (k) => [Math.min(...all.map((p) => p[k])), Math.max(...all.map((p) => p[k]))];
  const [[left, right], [low, high]] = [span(0), span(1)];
  const x = (p) => edge + ((p[0] - left) * (width - 2 * edge - 60)) / (right - left || 1);
  const y = (p) => height - edge - ((p[1] - low) * (height - 2 * edge)) / (high - low || 1);
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "chart",
    "aria-label": "Path of the followed token through the layers in the plane of the first two principal components" });
  plane.points.at(-1).forEach((p, i) => {
    if (i !== at) picture.append(shape("circle", { class: "other", cx: x(p), cy: y(p), r: 3 }, shape("title", { text: strip(stack.tokens)[i].label })));
  });
  const path = plane.points.map((state) => state[at]);
  picture.append(shape("polyline", { class: "line first", points: path.map((p) => `${x(p)},${y(p)}`).join(" ") }));
  path.forEach((p, i) => picture.append(shape("circle", { class: i ? "dot first" : "dot start", cx: x(p), cy: y(p), r: i ? 3.5 : 5 }, shape("title", { text: stack.places[i] }))));
  const last = path.at(-1);
  picture.append(shape("text", { x: x(last) + 8, y: y(last) + 4, text: short(strip(stack.tokens)[at].label) }));
  const [first, second] = plane.shares;
  return make("div", {}, picture, make("p", { class: "muted", text:
    `Across: ${percent(first)} of the variance of all directions, up: ${percent(second)}; what lies outside of this plane is not seen. The ring is the embedding.` }));
}

function lensGrid(lens) {
  const says = make("p", { class: "readout", role: "status", text: "Choose a cell to read its likeliest tokens." });
  const states = lens.places.length, length = lens.ids[0].length;
  const grid = [];
  const body = make("tbody");
  const head = make("tr", {}, make("td"));
  for (let j = 0; j < length; j++) head.append(make("th", { scope: "col", class: j === state.token ? "chosen" : "" }, text(short(strip(lens.tokens)[j].label, 12))));
  const say = (i, j) => {
    const words = [`${lens.places[i]}, after `, text(strip(lens.tokens)[j].label), ": "];
    lens.ids[i][j].forEach((id, k) => words.push(k ? ", " : "", text(lens.labels[id]), ` ${percent(lens.probability[i][j][k] ?? 0)}`));
    says.replaceChildren(...words, `; KL to the answer ${figure(lens.kl[i][j])} nats`);
  };
  for (let i = states - 1; i >= 0; i--) { // the last state on top, as it stands in the model
    const line = make("tr", {}, make("th", { scope: "row", text: i ? i - 1 : "in" }));
    grid[i] = [];
    for (let j = 0; j < length; j++) {
      const paint = color("attention", lens.probability[i][j][0] ?? 0);
      grid[i][j] = make("button", { type: "button", tabindex: i === states - 1 && j === 0 ? "0" : "-1", onclick: () => say(i, j), onfocus: () => say(i, j) },
        text(short(lens.labels[lens.ids[i][j][0]], 12)));
      grid[i][j].style.background = css(paint);
      grid[i][j].style.color = inkOn(paint);
      line.append(make("td", {}, grid[i][j]));
    }
    body.append(line);
  }
  const wrap = make("div", { class: "scroll" }, make("table", { class: "lens" },
    make("caption", { class: "unseen", text: "Likeliest token by layer (rows) and position (columns)" }), make("thead", {}, head), body));
  arrows(wrap, (down, right) => {
    for (let i = 0; i < states; i++) {
      const j = grid[i].indexOf(document.activeElement);
      if (j < 0) continue;
      const next = grid[between(i - down, states)][between(j + right, length)];
      grid[i][j].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
      return;
    }
  });
  return make("div", {}, says, wrap);
}
