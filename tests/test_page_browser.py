"""The page as a reader meets it: in Chromium, with no network."""

from __future__ import annotations

from dataclasses import replace

import browser
import inspect_samples as samples
import numpy as np
import pytest

from cutaway.inspect import page
from cutaway.show.label import printable

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)

PIECES = [
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\u202eevil", "\x00", "😀", "\u2028",
    "&lt;b&gt;", "{x}", "${x}", "]]>", "<!--", "javascript:alert(1)", "'\"`", "\\u003c", "\u200f\u2066", "e\u0301" * 5,
    "שלום", "\ud800", "<svg/onload=alert(1)>", "</style>",
]  # fmt: skip
HOSTILE = [f"{piece}{i}" for i in range(10) for piece in PIECES]  # 200 different ones


@pytest.fixture
def opened(tmp_path):
    pages = []

    def open_page(explanation):
        path = tmp_path / "page.html"
        page.save(explanation, path)
        pages.append(browser.Page(path, tmp_path / f"profile{len(pages)}"))
        return pages[-1]

    yield open_page
    for found in pages:
        found.close()
        assert found.requests == []
        assert found.errors == []


WALK = """
for (const view of Object.keys(VIEWS)) tabs[view].click();
tabs.attention.click();
for (const kind of Object.keys(run.attention)) {
  turnTo(kind);
  for (const form of hasLines() ? ["lines", "matrix"] : ["matrix"]) { state.form = form; show(); }
  for (const box of document.querySelectorAll("#attention-controls input")) { box.click(); box.click(); }
}
byId("as-table").open = true;
for (const ask of document.querySelectorAll(".ask")) ask.click();
for (const theme of ["dark", "light"]) {
  byId("theme").value = theme;
  byId("theme").dispatchEvent(new Event("change"));
}
"""


@pytest.mark.parametrize("make", [samples.encoder, samples.decoder, samples.encoder_decoder])
def test_every_view_draws_and_the_numbers_are_those_of_the_run(opened, make):
    explanation = samples.evidence_of(make())
    found = opened(explanation)
    found.value(WALK)
    for name, a in explanation.attention.items():
        layers, heads, rows, columns = a.pattern.shape
        read = found.value(f"""(() => {{ const e = run.attention[{name!r}]; const out = [];
            for (let l = 0; l < {layers}; l++) for (let h = 0; h < {heads}; h++) for (let i = 0; i < {rows}; i++)
            for (let j = 0; j < {columns}; j++) out.push(weight(e, l, h, i, j)); return out; }})()""")
        packed = page.page_data(explanation)["attention"][name]["packed"]
        assert packed["error"] < 1e-4
        np.testing.assert_allclose(np.reshape(read, a.pattern.shape), a.pattern, atol=packed["error"] + 1e-9)
    if explanation.answers:
        shown = found.value(
            "tabs.answer.click(); [...document.querySelectorAll('#view-answer .name')].map(e => e.textContent)"
        )
        assert {printable(a.label) for a in explanation.answers} <= set(shown)


def test_200_hostile_strings_are_shown_as_text(opened):
    explanation = samples.encoder(HOSTILE, 2, 2, text=" ".join(HOSTILE))
    answers = [replace(a, label=HOSTILE[i]) for i, a in enumerate(explanation.answers)]
    model = replace(explanation.model, name=HOSTILE[0])
    found = opened(samples.evidence_of(replace(explanation, answers=answers, model=model), HOSTILE[2]))
    found.value(WALK)
    shown = found.value("[...document.querySelectorAll('#strips button')].map(e => e.textContent)")
    assert shown == [printable(word) for word in HOSTILE]
    assert found.value("document.querySelector('h1').textContent") == printable(" ".join(HOSTILE))
    assert found.value("document.querySelectorAll('img, iframe, object, a').length") == 0
    assert found.value("document.scripts.length") == 2
    assert printable(HOSTILE[2]) in found.value("tabs.attribution.click(); byId('view-attribution').textContent")


def test_the_matrix_by_keyboard_and_by_mouse(opened):
    explanation = samples.evidence_of(samples.encoder())
    found = opened(explanation)
    press = "canvas.dispatchEvent(new KeyboardEvent('keydown', {key: '%s', bubbles: true}));"
    found.value(press % "ArrowDown" + press % "ArrowDown" + press % "ArrowRight")
    row, column = found.value("[box.row, box.column]")
    assert (row, column) == (explanation.token + 1, 1)
    share = explanation.head.matrix[row, column]
    assert f"{100 * share:.1f}%" in found.value("byId('readout').textContent")
    assert found.value(press % "Enter" + "[state.locked, state.token]") == [True, row]
    assert found.value(press % "i" + "state.alone") == row
    assert found.value(press % "Escape" + "[state.locked, state.alone]") == [False, -1]
    click = """(() => {
      const r = canvas.getBoundingClientRect();
      const [clientX, clientY] = [r.x + box.x + 3.5 * box.cell, r.y + box.y + 4.5 * box.cell];
      canvas.dispatchEvent(new MouseEvent("%s", {bubbles: true, detail: %d, clientX, clientY}));
      return [state.locked, state.token, box.column, state.alone];
    })()"""
    assert found.value(click % ("click", 1)) == [True, 4, 3, -1]
    assert found.value(click % ("dblclick", 2))[3] == 4
    move = """cells[state.layer][state.head].focus();
      document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft", bubbles: true}));
      [state.layer, state.head, document.activeElement === cells[state.layer][state.head]]"""
    layer, head = explanation.head.layer, explanation.head.head
    assert found.value(move) == [layer, max(head - 1, 0), True]


def test_the_tree_and_the_path_of_a_token(opened):
    explanation = samples.evidence_of(samples.decoder())
    found = opened(explanation)
    shown = found.value("tabs.generation.click(); [...document.querySelectorAll('.tree text')].map(e => e.textContent)")
    ways = explanation.evidence.branches
    assert len(shown) == len(explanation.steps) + sum(len(way.tokens) for way in ways)
    assert shown[-len(explanation.steps)] == f"{explanation.steps[0].picked.label} 41%"
    click = "document.querySelectorAll('.tree .trunk text')[2].dispatchEvent(new MouseEvent('click', {bubbles: true}));"
    assert found.value(f"{click} state.step") == 2
    dots = found.value("tabs.layers.click(); document.querySelectorAll('#view-layers circle.dot.first').length")
    assert dots >= 2 * (explanation.model.layers + 1)
    none = opened(samples.evidence_of(samples.encoder()))
    assert none.value("Object.keys(tabs)") == ["attention", "layers", "attribution", "answer"]


def test_weighted_values_and_rollout_are_shown(opened):
    explanation = samples.evidence_of(samples.encoder())
    found = opened(explanation)
    head = explanation.head
    weighted = found.value("state.weighted = true; show(); shown(3, 2)")
    norm = explanation.evidence.value_norms["self"][head.layer, head.head, 2]
    assert weighted == pytest.approx(head.matrix[3, 2] * norm, abs=1e-3)
    rolled = found.value("state.weighted = false; state.rollout = true; show(); shown(3, 2)")
    assert rolled == pytest.approx(explanation.evidence.rollout["self"][head.layer, 3, 2], abs=1e-4)
