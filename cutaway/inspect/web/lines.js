// One head of a short text as lines from the tokens that look (left) to those looked at (right).
const LINES = 48;
function hasLines() {
  const [, , rows, columns] = attention().packed.shape;
  return Math.max(rows, columns) <= LINES;
}

function drawLines() {
  const entry = attention();
  const [, , rows, columns] = entry.packed.shape;
  const [step, left, right, width] = [22, 170, 370, 540];
  const height = step * Math.max(rows, columns) + 8;
  const y = (i) => 16 + i * step;
  const most = largest();
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, class: "lines", role: "img",
    "aria-label": `Layer ${state.layer}, head ${state.head} as lines; the table below holds the same numbers` });
  const seen = (i) => (state.alone < 0 ? true : i === state.alone);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const share = shown(i, j) / most;
      if (share < 0.04 || !(seen(i) || seen(j))) continue;
      picture.append(shape("line", { x1: left, y1: y(i), x2: right, y2: y(j), class: i === state.token ? "edge chosen" : "edge",
        "stroke-opacity": (i === state.token ? 0.25 + 0.75 * share : 0.75 * share).toFixed(3), "stroke-width": (0.5 + 3 * share).toFixed(2) }));
    }
  }
  const side = (name, count, x, anchor, chooses) => {
    for (let i = 0; i < count; i++) {
      const words = shape("text", { x, y: y(i) + 4, "text-anchor": anchor, class: chooses && i === state.token ? "chosen" : "", text: short(strip(name)[i].label, 20) });
      if (chooses) {
        words.addEventListener("click", () => follow(name, i));
        words.addEventListener("dblclick", () => isolate(i));
      }
      picture.append(words);
    }
  };
  side(entry.rows, rows, left - 8, "end", true);
  side(entry.columns, columns, right + 8, "start", false);
  byId("lines").replaceChildren(picture);
}
