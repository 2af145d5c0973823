// Bars and lines that several views draw.
function bar(label, share, number) {
  const full = make("div", { class: "fill" });
  full.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
  return make("div", { class: "bar" }, make("div", { class: "name" }, text(label)),
    make("div", { class: "track", "aria-hidden": "true" }, full), make("div", { class: "number", text: number }));
}

// A bar from the middle: to the right for what is above 0, to the left for what is below.
function signedBar(value, most) {
  const full = make("div", { class: value < 0 ? "fill against" : "fill for" });
  const share = 50 * Math.min(Math.abs(value) / (most || 1), 1);
  full.style.width = `${share}%`;
  full.style.marginLeft = `${value < 0 ? 50 - share : 50}%`;
  return make("div", { class: "track middle", "aria-hidden": "true" }, full);
}

// series: [{ label, values, dash }], all over the same places; the axis runs from `low` to `high`.
function lineChart(title, series, places, low, high) {
  const [width, height, left, bottom] = [560, 220, 44, 26];
  const x = (i) => left + (i * (width - left - 12)) / Math.max(places.length - 1, 1);
  const y = (v) => 8 + ((high - v) * (height - bottom - 8)) / (high - low || 1);
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title, class: "chart" });
  for (let i = 0; i <= 4; i++) {
    const value = low + ((high - low) * i) / 4;
    picture.append(shape("line", { x1: left, x2: width - 12, y1: y(value), y2: y(value), class: "rule" }),
      shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end", text: value.toFixed(high - low > 5 ? 0 : 2) }));
  }
  const every = Math.ceil(places.length / 14);
  places.forEach((place, i) => { if (i % every === 0) picture.append(shape("text", { x: x(i), y: height - 8, "text-anchor": "middle", text: i === 0 ? "in" : i - 1 })); });
  for (const { values, name } of series) {
    picture.append(shape("polyline", { class: `line ${name}`, points: values.map((v, i) => `${x(i)},${y(v ?? low)}`).join(" ") }));
    values.forEach((v, i) => picture.append(shape("circle", { class: `dot ${name}`, cx: x(i), cy: y(v ?? low), r: 3 })));
  }
  return picture;
}
