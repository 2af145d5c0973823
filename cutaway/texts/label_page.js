"use strict";
const at = (id) => document.getElementById(id);
let item = null;
let busy = false;
const seen = [];

async function ask(path, body) {
  const how = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, { cache: "no-store", ...how });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error?.message ?? told.error ?? String(answer.status));
  return told;
}

function problem(text) {
  at("problem").textContent = text;
  at("problem").hidden = text === "";
}

function show(told) {
  const p = told.progress;
  const parts = [`${p.labelled} of ${p.texts} texts have a label`];
  if (p.skipped) parts.push(`${p.skipped} skipped`);
  if (told.model && p.scored < p.texts) parts.push(`the model has read ${p.scored}`);
  if (told.right[1]) parts.push(`the model was right on ${told.right[0]} of ${told.right[1]}`);
  at("progress").textContent = parts.join(" · ");
  at("bar").max = p.texts;
  at("bar").value = p.labelled;
  problem(told.failure ? `The model's proposals have stopped: ${told.failure}` : "");
  item = told.item;
  at("asked").hidden = item === null;
  at("done").hidden = item !== null;
  if (item === null) return;
  at("where").textContent = `row ${item.row}`;
  at("known").textContent = item.label === null ? "" : `· its label is ${item.label}`;
  at("text").textContent = item.text;
  const buttons = told.labels.map((label, i) => {
    const button = document.createElement("button");
    button.type = "button";
    if (i < 9) {
      const key = document.createElement("kbd");
      key.textContent = String(i + 1);
      button.append(key, " ");
    }
    button.append(label);
    const share = item.scores?.[label];
    if (share !== undefined) {
      const shown = document.createElement("span");
      shown.className = "share";
      shown.textContent = `${Math.round(100 * share)}%`;
      button.append(shown);
    }
    if (label === item.proposal) button.classList.add("proposed");
    button.setAttribute("aria-pressed", String(label === item.label));
    button.addEventListener("click", () => give(label));
    return button;
  });
  at("labels").replaceChildren(...buttons);
  at("text").scrollTop = 0;
  at("text").focus({ preventScroll: true });
}

async function go(work) {
  if (busy) return;
  busy = true;
  try {
    show(await work());
  } catch (error) {
    problem(`${error.message}. Nothing is lost; the answer on this page is not kept yet.`);
  } finally {
    busy = false;
    document.documentElement.dataset.ready = "yes";
  }
}

const give = (label) => item && go(async () => {
  const place = item.place;
  const told = await ask("/answer", { place, label });
  seen.push(place);
  return told;
});
const back = () => seen.length && go(async () => {
  const told = await ask(`/item?place=${seen[seen.length - 1]}`);
  seen.pop();
  return told;
});

at("skip").addEventListener("click", () => give(null));
at("back").addEventListener("click", back);
at("again").addEventListener("click", back);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const onButton = event.target instanceof HTMLButtonElement;
  if (event.key >= "1" && event.key <= "9") at("labels").children[Number(event.key) - 1]?.click();
  else if (event.key === "Enter" && !onButton && item?.proposal) give(item.proposal);
  else if (event.key === "s") give(null);
  else if (event.key === "ArrowLeft" || event.key === "Backspace") back();
  else return;
  event.preventDefault();
});
go(() => ask("/item"));
