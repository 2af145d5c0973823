// The tokens, always in sight. A click follows a token; the colour says what the open view says of each.
const buttons = {}; // strip's name -> its buttons

function makeStrips() {
  for (const name of ["tokens", "target"]) {
    const tokens = strip(name);
    if (!tokens.length) continue;
    const line = make("div", { class: "strip", role: "group", "aria-label": name === "target" ? "Tokens of the decoder" : "Tokens of the text" });
    buttons[name] = tokens.map((token, i) => make("button", {
      type: "button", class: token.special ? "special" : token.generated ? "generated" : "", tabindex: i ? "-1" : "0",
      onclick: () => follow(name, i), ondblclick: () => { if (state.view === "attention" && name === attention().rows) isolate(i); },
    }, text(token.label)));
    line.append(...buttons[name]);
    arrows(line, (down, right) => {
      const at = buttons[name].indexOf(document.activeElement);
      if (at >= 0) buttons[name][between(at + right + down, tokens.length)].focus();
    });
    line.addEventListener("focusin", (event) => {
      const at = buttons[name].indexOf(event.target.closest("button"));
      buttons[name].forEach((button, i) => { button.tabIndex = i === at ? 0 : -1; });
    });
    byId("strips").append(line);
  }
}

// The strip whose tokens the open view follows.
function followed() {
  if (state.view === "attribution") return "tokens";
  const lens = run.evidence.lens;
  return state.view === "layers" && lens ? lens.tokens : attention().rows;
}

function follow(name, index) {
  if (name !== followed()) return;
  state.token = index;
  show();
}

function colorStrips() {
  const entry = attention();
  const scores = run.evidence.attributions[0];
  const says = byId("strip-says");
  says.textContent = {
    attention: "Choose a token: the colour of each is what it gets of the chosen one's attention.",
    layers: "Choose a token to follow it through the layers.",
    attribution: scores ? `Coloured by ${scores.method}: orange for the answer, blue against it.` : "",
    answer: "The tokens of the text and what was written.",
    generation: "The tokens of the text and what was written.",
  }[state.view];
  const most = scores ? Math.max(...scores.scores.map(Math.abs)) : 1;
  const top = state.view === "attention" ? largest() : 1;
  for (const [name, all] of Object.entries(buttons)) {
    all.forEach((button, i) => {
      button.setAttribute("aria-pressed", String(name === followed() && i === state.token));
      let paint = null, words = "";
      if (state.view === "attention" && name === entry.columns) {
        const value = shown(state.token, i);
        paint = color("attention", value / top);
        words = amount(value);
      } else if (state.view === "attribution" && scores && name === "tokens" && i < scores.scores.length) {
        paint = signed(scores.scores[i], most);
        words = figure(scores.scores[i]);
      }
      button.style.background = paint ? css(paint) : "";
      button.style.color = paint ? inkOn(paint) : "";
      button.title = words;
    });
  }
}
