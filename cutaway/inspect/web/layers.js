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
  const lens = run.evidence.lens;
  if (lens) found.push(heading("What each layer would say: logit lens", "lens"), lensGrid(lens));
  else if (run.evidence.missing.lens) found.push(make("p", { class: "muted", text: `No lens: ${run.evidence.missing.lens}` }));
  byId("view-layers").replaceChildren(...found);
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
