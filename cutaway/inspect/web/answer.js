// The answer, what made its logit, and what was written.
function drawAnswer() {
  const found = [];
  if (run.answers.length) {
    const how = { softmax: "Softmax of the logits.", sigmoid: "Sigmoid of each logit.", none: "The logits themselves." };
    const most = Math.max(...run.answers.map((a) => Math.abs(a.logit))) || 1;
    found.push(heading(run.kind === "labels" ? "Answer" : "First token of the answer", "answer"), make("p", { class: "muted", text: how[run.function] || "" }));
    for (const a of [...run.answers].sort((a, b) => b.logit - a.logit)) {
      found.push(run.function === "none" ? bar(a.label, Math.abs(a.logit) / most, figure(a.logit))
        : bar(a.label, a.probability, `${percent(a.probability)}  (logit ${figure(a.logit)})`));
    }
  }
  if (run.steps.length) found.push(...written());
  const { parts, missing, answer } = run.evidence;
  if (parts) found.push(heading(["What made the logit of ", text(answer)], "parts"), waterfall(parts));
  else if (missing.parts) found.push(make("p", { class: "muted", text: `The logit is not taken apart: ${missing.parts}` }));
  if (!found.length) found.push(make("p", { class: "muted", text: "This checkpoint has no head: it gives vectors and no answer." }));
  byId("view-answer").replaceChildren(...found);
}

function written() {
  const title = run.kind === "mask" ? "Filled in" : "What was written, the likeliest token each time";
  const line = make("div", { class: "strip", role: "group", "aria-label": "Written tokens" });
  run.steps.forEach((step, i) => {
    const paint = color("attention", step.picked.probability);
    const button = make("button", { type: "button", "aria-pressed": String(i === state.step), title: percent(step.picked.probability),
      onclick: () => { state.step = i; show(); byId("view-answer").querySelectorAll(".strip button")[i].focus(); } }, text(step.picked.label));
    button.style.background = css(paint);
    button.style.color = inkOn(paint);
    line.append(button);
  });
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

// The largest parts one by one, the rest together, and their sum: it is the logit.
function waterfall(parts) {
  const order = parts.values.map((value, i) => [parts.names[i], value]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const rest = order.slice(14);
  const steps = order.slice(0, 14);
  if (rest.length) steps.push([`${rest.length} other parts`, rest.reduce((sum, [, value]) => sum + value, 0)]);
  let at = 0;
  const spans = steps.map(([name, value]) => { const from = at; at += value; return [name, value, from, at]; });
  const ends = [0, ...spans.map((s) => s[3])];
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const share = (value) => (100 * (value - low)) / (high - low || 1);
  const rows = spans.map(([name, value, from, to]) => {
    const full = make("div", { class: value < 0 ? "fill against" : "fill for" });
    full.style.marginLeft = `${share(Math.min(from, to))}%`;
    full.style.width = `${Math.max(share(Math.max(from, to)) - share(Math.min(from, to)), 0.3)}%`;
    return [name, make("div", { class: "track", "aria-hidden": "true" }, full), figure(value), figure(to)];
  });
  rows.push([make("strong", { text: "sum" }), "", make("strong", { text: figure(parts.total) }), `the model's logit: ${figure(parts.logit)}`]);
  return table("Parts of the logit, largest first", ["part", "adds", "value*", "so far*"], rows);
}
