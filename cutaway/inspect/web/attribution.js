// Which tokens moved the answer: the methods side by side, each with what its sum misses.
function drawAttribution() {
  const { attributions, answer, missing } = run.evidence;
  const found = [heading(answer ? ["Which tokens moved ", text(answer)] : "Which tokens moved the answer", "attribution")];
  if (!attributions.length) found.push(make("p", { class: "muted", text: `Not available: ${missing.attribution || "this run has none."}` }));
  else {
    const shownScores = attributions.map((a) => ({ ...a, most: Math.max(...a.scores.map(Math.abs)) }));
    const methods = make("ul", { class: "muted" });
    for (const a of attributions) {
      const rest = a.residual === null ? "promises no sum" : `residual ${percent(a.residual)}${a.note ? `: ${a.note}` : ""}`;
      methods.append(make("li", { text: `${a.method}: logit ${figure(a.value)}, without any token ${figure(a.base)}; ${rest}; ${a.steps} evaluations` }));
    }
    found.push(methods);
    const rows = attributions[0].scores.map((_, i) => [text(run.tokens[i].label),
      ...shownScores.flatMap((a) => [signedBar(a.scores[i], a.most), figure(a.scores[i])])]);
    found.push(table("Scores of each token by each method", ["token", ...attributions.flatMap((a) => [a.method, "score*"])], rows));
  }
  byId("view-attribution").replaceChildren(...found);
}
