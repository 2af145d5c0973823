// Elements, made without markup: a string only ever becomes text or an attribute's value.
const byId = (id) => document.getElementById(id);

function fill(node, options, children) {
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
const make = (tag, options = {}, ...children) => fill(document.createElement(tag), options, children);
const shape = (tag, options = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), options, children);

// A token or a name in its own direction, so that right-to-left text cannot reorder what is beside it.
const text = (value) => make("bdi", { text: value });
const short = (label, most = 16) => { const all = [...label]; return all.length > most ? all.slice(0, most - 1).join("") + "…" : label; };

function heading(words, topic) {
  return make("h2", {}, ...(Array.isArray(words) ? words : [words]), " ", help(topic));
}

// The "?" of a view: what it shows, its formula, its paper, a caution.
function help(topic) {
  const list = make("dl");
  for (const [name, words] of Object.entries(run.guide[topic])) list.append(make("dt", { text: name }), make("dd", { text: words }));
  const box = make("span", { class: "explained", role: "note", hidden: "" }, list);
  const button = make("button", { type: "button", class: "ask", "aria-expanded": "false", "aria-label": `About ${topic}`, text: "?",
    onclick: () => { box.hidden = !box.hidden; button.setAttribute("aria-expanded", String(!box.hidden)); } });
  return make("span", { class: "help" }, button, box);
}

// Columns whose name ends in * hold numbers.
function table(caption, names, rows) {
  const head = make("tr");
  for (const name of names) {
    const right = name.endsWith("*");
    head.append(make("th", { scope: "col", class: right ? "number" : "", text: right ? name.slice(0, -1) : name }));
  }
  const body = make("tbody");
  for (const row of rows) {
    const line = make("tr");
    row.forEach((cell, i) => line.append(make("td", { class: names[i].endsWith("*") ? "number" : "" }, cell)));
    body.append(line);
  }
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("caption", { class: "unseen", text: caption }), make("thead", {}, head), body));
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
function arrows(node, move) {
  node.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move(...step);
  });
}
const between = (value, count) => Math.min(Math.max(value, 0), count - 1);
