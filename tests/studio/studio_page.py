"""The hands of a reader of the studio's page, in the page's own language."""

from __future__ import annotations

from pathlib import Path

AXE = Path(__file__).parents[2] / "page" / "node_modules" / "axe-core" / "axe.min.js"
HANDS = """
const nap = (ms) => new Promise((done) => setTimeout(done, ms));
const one = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const until = async (what, ms = 30000) => {
  const end = performance.now() + ms;
  while (!what()) { if (performance.now() > end) throw new Error("waited for " + what); await nap(20); }
};
const both = (selector) => one(selector).innerText.split("\\n").slice(1).join(); // without its heading
const click = async (selector) => { one(selector).click(); await nap(0); };
const enter = (field, value) => { field.value = value; field.dispatchEvent(new Event("input", { bubbles: true })); };
const type = async (text) => {
  enter(one("#text"), text);
  await until(() => cutaway.studio.shownText === text);
  await nap(0);
};
const model = async (name) => {
  const list = one("#model");
  list.selectedIndex = cutaway.studio.models.findIndex((it) => it.name === name);
  list.dispatchEvent(new Event("change", { bubbles: true }));
  await until(() => cutaway.run.summary.startsWith(name + ":") && !cutaway.studio.waiting);
};
const view = async (name, text, tab) => {
  await model(name);
  await type(text);
  await click(`#tab-${tab}`);
};
"""


def act(found, steps, result="null"):
    return found.value(f"(async () => {{ {HANDS} {steps}; return {result}; }})()")
