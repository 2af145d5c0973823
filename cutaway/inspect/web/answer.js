// The answer, and what made its logit.
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
  const { parts, missing, answer } = run.evidence;
  if (parts) found.push(heading(["What made the logit of ", text(answer)], "parts"), waterfall(parts));
  else if (missing.parts) found.push(make("p", { class: "muted", text: `The logit is not taken apart: ${missing.parts}` }));
  if (run.kind === "states") found.push(make("p", { class: "muted", text: "This checkpoint has no head: it gives vectors and no answer." }));
  byId("view-answer").replaceChildren(...found);
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
