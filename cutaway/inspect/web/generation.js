// What was written: each token with what else was likely, and the tree of what would have followed that.
function drawGeneration() {
  const found = [];
  const { branches } = run.evidence;
  if (run.steps.length) found.push(...written());
  if (branches.length) found.push(heading("Had another token been taken", "tree"), tree(branches), branchTable(branches));
  byId("view-generation").replaceChildren(...found);
}

function chooseStep(i) {
  state.step = between(i, run.steps.length);
  show();
  /** @type {HTMLElement} */ (byId("view-generation").querySelectorAll(".strip button")[state.step]).focus();
}

function written() {
  const title = run.kind === "mask" ? "Filled in" : "What was written, the likeliest token each time";
  const line = make("div", { class: "strip", role: "group", "aria-label": "Written tokens" });
  run.steps.forEach((step, i) => {
    const paint = color("attention", step.picked.probability);
    const button = make("button", { type: "button", "aria-pressed": String(i === state.step), tabindex: i === state.step ? "0" : "-1",
      title: percent(step.picked.probability), onclick: () => chooseStep(i) }, text(step.picked.label));
    button.style.background = css(paint);
    button.style.color = inkOn(paint);
    line.append(button);
  });
  arrows(line, (down, right) => chooseStep(state.step + right + down));
  const step = run.steps[between(state.step, run.steps.length)];
  const bars = step.candidates.map((c) => bar(c.label, c.probability, percent(c.probability)));
  const rows = run.steps.map((s) => {
    const others = make("span");
    s.candidates.filter((c) => c.id !== s.picked.id).slice(0, 4).forEach((c, i) => others.append(i ? ", " : "", text(c.label), ` ${percent(c.probability)}`));
    return [s.position, text(s.picked.label), percent(s.picked.probability), others];
  });
  return [heading(title, "steps"), ...(run.generated ? [make("p", {}, text(run.generated))] : []), line,
    make("p", { class: "muted" }, "Likeliest in place of ", text(step.picked.label), `, position ${step.position}:`), ...bars,
    make("details", {}, make("summary", { text: "All of it as a table" }), table("Written tokens", ["#*", "token", "probability*", "instead of"], rows))];
}

// The trunk is what was written. A branch leaves it where another token was likely; each has a lane of its own, so that
// none crosses another: those of one side come back to a lane when the branch before them has ended.
function tree(branches) {
  const [wide, high] = [112, 34];
  const longest = Math.max(...branches.map((b) => b.tokens.length));
  const side = {}; // step -> how many of its branches are placed
  const placed = branches.map((branch) => {
    const nth = (side[branch.step] = (side[branch.step] ?? -1) + 1);
    const lane = 1 + (branch.step % longest) + longest * (nth >> 1);
    return { ...branch, lane: nth % 2 ? lane : -lane };
  });
  const lanes = Math.max(...placed.map((b) => Math.abs(b.lane)));
  const columns = Math.max(run.steps.length, ...placed.map((b) => b.step + b.tokens.length));
  const [width, height] = [(columns + 1) * wide, (2 * lanes + 1) * high + 12];
  const x = (i) => (i + 1) * wide - wide / 2;
  const y = (lane) => height / 2 + lane * high;
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", class: "tree",
    "aria-label": "Tree of what was written and what would have followed other tokens; the table below holds the same" });
  const edge = (x1, y1, x2, y2, share, name) => picture.append(shape("path", { class: `way ${name}`,
    d: `M${x1} ${y1} C${x1 + 24} ${y1}, ${x2 - 24} ${y2}, ${x2} ${y2}`, "stroke-width": (1 + 5 * share).toFixed(2) }));
  const nodes = [];
  const node = (i, lane, token, name, onclick) => {
    const paint = color("attention", token.probability);
    const group = shape("g", { class: name }, shape("title", { text: `${token.label} ${percent(token.probability)}` }),
      shape("rect", { x: x(i) - 44, y: y(lane) - 13, width: 88, height: 26, rx: 4, fill: css(paint) }));
    const words = shape("text", { x: x(i), y: y(lane) + 4, "text-anchor": "middle", text: `${short(token.label, 8)} ${Math.round(100 * token.probability)}%` });
    words.style.fill = inkOn(paint);
    group.append(words);
    if (onclick) group.addEventListener("click", onclick);
    nodes.push(group);
  };
  for (const { step, lane, tokens } of placed) {
    edge(step ? x(step - 1) + 44 : 8, y(0), x(step) - 44, y(lane), tokens[0].probability, "aside");
    tokens.forEach((token, i) => {
      if (i) edge(x(step + i - 1) + 44, y(lane), x(step + i) - 44, y(lane), token.probability, "aside");
      node(step + i, lane, token, "aside");
    });
  }
  run.steps.forEach((step, i) => {
    edge(i ? x(i - 1) + 44 : 8, y(0), x(i) - 44, y(0), step.picked.probability, "trunk");
    node(i, 0, step.picked, i === state.step ? "trunk chosen" : "trunk", () => chooseStep(i));
  });
  picture.append(...nodes);
  return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Tree of generation" }, picture);
}

function branchTable(branches) {
  const rows = branches.map(({ step, tokens }) => {
    const line = make("span");
    tokens.forEach((token, i) => line.append(i ? " " : "", text(token.label), ` ${percent(token.probability)}`));
    return [run.steps[step].position, text(run.steps[step].picked.label), line];
  });
  return make("details", {}, make("summary", { text: "The branches as a table" }),
    table("Branches", ["#*", "in place of", "what would have followed, each with its probability"], rows));
}
