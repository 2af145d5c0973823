// The views, and what is drawn when something changed.
const VIEWS = { attention: "Attention", layers: "Layers", attribution: "Attribution", answer: "Answer and why",
  ...(run.steps.length ? { generation: run.kind === "mask" ? "Filled in" : "Generation" } : {}) };
const tabs = {};

function makeTabs() {
  for (const [name, words] of Object.entries(VIEWS)) {
    tabs[name] = make("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `view-${name}`, text: words, onclick: () => openView(name) });
  }
  byId("tabs").append(...Object.values(tabs));
  arrows(byId("tabs"), (down, right) => {
    const names = Object.keys(VIEWS);
    openView(names[(names.indexOf(state.view) + right + down + names.length) % names.length]);
    tabs[state.view].focus();
  });
}

function openView(name) {
  state.view = name;
  state.token = between(state.token, strip(followed()).length);
  show();
}

function show() {
  for (const [name, tab] of Object.entries(tabs)) {
    tab.setAttribute("aria-selected", String(name === state.view));
    tab.tabIndex = name === state.view ? 0 : -1;
    byId(`view-${name}`).hidden = name !== state.view;
  }
  if (state.view === "attention") drawAttention();
  else ({ layers: drawLayers, attribution: drawAttribution, answer: drawAnswer, generation: drawGeneration })[state.view]();
  colorStrips();
}

function drawAttention() {
  const entry = attention();
  state.token = between(state.token, entry.packed.shape[2]);
  byId("which").textContent = state.rollout ? `Rollout up to layer ${state.layer}` : `Layer ${state.layer}, head ${state.head}`;
  byId("place").textContent = `${entry.address.replace("{i}", state.layer)}${state.rollout ? "" : `, head ${state.head}`}. Rows look, columns are looked at.`;
  drawHeads();
  const lines = state.form === "lines";
  byId("matrix-box").hidden = lines;
  byId("lines").hidden = !lines;
  if (lines) drawLines();
  else paintHead();
  drawTable();
  if (lines) byId("readout").textContent = "Click a token on the left to follow it, twice to isolate it.";
  else if (box.row >= 0) read(box.row, box.column);
  else { byId("readout").textContent = "Point at a cell to read it."; drawMatrix(); }
}

function begin() {
  document.title = `cutaway: ${run.text.slice(0, 60)}`;
  byId("text").append(text(run.text));
  byId("model").textContent = run.summary;
  byId("footer").textContent = run.provenance + (run.certificate ? ` Checked: head ${run.certificate.head} of ${run.certificate.address}, weights times values against the fast kernel: ${run.certificate.error.toExponential(1)}.` : "");
  for (const place of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-help]"))) place.replaceWith(help(place.dataset.help));
  byId("theme").addEventListener("change", (event) => { document.documentElement.dataset.theme = /** @type {HTMLSelectElement} */ (event.target).value; show(); });
  system.addEventListener("change", show);
  addEventListener("resize", () => { if (state.view === "attention" && state.form === "matrix") drawMatrix(); });
  [state.layer, state.head] = [attention().layer, attention().head];
  makeStrips();
  makeTabs();
  const first = attention().rows === "tokens" ? run.token : 1;
  state.token = Math.min(first, attention().packed.shape[2] - 1);
  makeControls();
  makeHeads();
  show();
  performance.mark("ready");
  document.documentElement.dataset.ready = "yes";
}
begin();
