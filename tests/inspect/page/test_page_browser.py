"""The page as a reader meets it: in Chromium, with no network."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import browser
import inspect_samples as samples
import numpy as np
import pytest
from PIL import Image

from cutaway.inspect.page import page
from cutaway.show.label import printable

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None and not browser.REQUIRED, reason=browser.MISSING)

AXE = Path(__file__).parents[3] / "page" / "node_modules" / "axe-core" / "axe.min.js"
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


# What a reader can do, done through the elements that a reader has. Views draw themselves after each step.
HANDS = """
const drawn = () => new Promise((done) => setTimeout(done));
const all = (selector) => [...document.querySelectorAll(selector)];
const texts = (selector) => all(selector).map((e) => e.textContent);
const one = (selector) => document.querySelector(selector);
const click = async (selector) => { one(selector).click(); await drawn(); };
const choose = async (list, i) => {
  list.selectedIndex = i;
  list.dispatchEvent(new Event("change", { bubbles: true }));
  await drawn();
};
const press = async (element, key) => {
  element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  await drawn();
};
const kinds = () => all("#choices select").find((list) => list.parentNode.textContent.trim().startsWith("attention"));
const form = () => all("#choices select").find((list) => list.parentNode.textContent.trim().startsWith("drawn"));
"""

WALK = """
for (const tab of all("[role=tab]")) {
  tab.click();
  await drawn();
  for (const ask of all(".ask")) ask.click();
  for (const part of all("details")) part.open = true;
  for (const button of all(".strip button, .lens button, .methods input").slice(0, 400)) button.click();
  await drawn();
}
await click("#tab-attention");
for (let kind = 0; kind < (kinds()?.length ?? 1); kind++) {
  if (kinds()) await choose(kinds(), kind);
  for (let i = 0; i < (form()?.length ?? 0); i++) await choose(form(), i);
  for (const box of all("#choices input")) {
    for (let turn = 0; turn < 2; turn++) { box.click(); await drawn(); }
  }
  for (let i = 0; i < (form()?.length ?? 0); i++) await choose(form(), form().length - 1 - i);
}
for (const theme of [2, 1]) await choose(one("#theme"), theme);
"""


def act(found, steps, result="null"):
    """What `result` is after these steps of a reader."""
    return found.value(f"(async () => {{ {HANDS} {steps}; return {result}; }})()")


@pytest.mark.parametrize("make", [samples.encoder, samples.decoder, samples.encoder_decoder])
def test_every_view_draws_and_the_numbers_are_those_of_the_run(opened, make):
    explanation = samples.evidence_of(make())
    found = opened(explanation)
    act(found, WALK)
    for name, a in explanation.attention.items():
        layers, heads, rows, columns = a.pattern.shape
        read = found.value(f"""(() => {{ const e = cutaway.run.attention[{name!r}]; const out = [];
            for (let l = 0; l < {layers}; l++) for (let h = 0; h < {heads}; h++) for (let i = 0; i < {rows}; i++)
            for (let j = 0; j < {columns}; j++) out.push(cutaway.weight(e, l, h, i, j)); return out; }})()""")
        packed = page.page_data(explanation)["attention"][name]["packed"]
        assert packed["error"] < 1e-4
        np.testing.assert_allclose(np.reshape(read, a.pattern.shape), a.pattern, atol=packed["error"] + 1e-9)
        kind = list(explanation.attention).index(name)
        table = act(found, f"if (kinds()) await choose(kinds(), {kind})", "texts('#as-table td.number').map(Number)")
        np.testing.assert_allclose(np.reshape(table, (rows, columns)), 100 * a.matrix, atol=0.06)
    if explanation.answers:
        shown = act(found, "await click('#tab-answer')", "texts('#view-answer .name')")
        assert {printable(a.label) for a in explanation.answers} <= set(shown)


@pytest.mark.parametrize("make", [samples.encoder, samples.decoder])
def test_numbers_that_are_not_finite_are_said_so(opened, make):
    """A model whose weights are broken gives nothing else."""

    def broken(value):
        if isinstance(value, np.ndarray):
            return np.full_like(value, np.nan)
        if isinstance(value, float):
            return float("nan")
        if isinstance(value, dict):
            return {name: broken(entry) for name, entry in value.items()}
        if isinstance(value, list):
            return [broken(entry) for entry in value]
        if is_dataclass(value):
            kept = [f.name for f in fields(value) if f.name != "error"]  # how exact the page's own numbers are
            return replace(value, **{name: broken(getattr(value, name)) for name in kept})
        return value

    found = opened(broken(samples.evidence_of(make())))
    act(found, WALK)
    assert "not a number" in act(found, "await click('#tab-answer')", "one('#view-answer').textContent")


def test_weights_that_are_not_finite_are_said_so_one_by_one(opened):
    explanation = samples.evidence_of(samples.encoder())
    a = explanation.head
    pattern = a.pattern.copy()
    pattern[a.layer, a.head, 4, 3:] = np.nan
    found = opened(replace(explanation, attention={"self": replace(a, pattern=pattern)}))
    shown = act(found, "one('#as-table').open = true; await drawn()", "texts('#as-table td.number')")
    want = ["not a number" if np.isnan(share) else f"{100 * share:.1f}" for share in pattern[a.layer, a.head].ravel()]
    assert sum(one == two for one, two in zip(shown, want, strict=True)) > 0.9 * len(want)  # rounding of packed ones
    assert [one == "not a number" for one in shown] == [one == "not a number" for one in want]
    steps = "cutaway.page.point(4, {}); await drawn();"
    assert "not a number" in act(found, steps.format(5), "one('#readout').textContent")
    assert f"{100 * pattern[a.layer, a.head, 4, 1]:.1f}%" in act(found, steps.format(1), "one('#readout').textContent")
    act(found, WALK)
    assert "they have no colour" in act(found, "await click('#tab-attention')", "one('#view-attention').textContent")


def test_200_hostile_strings_are_shown_as_text(opened):
    explanation = samples.encoder(HOSTILE, 2, 2, text=" ".join(HOSTILE))
    answers = [replace(a, label=HOSTILE[i]) for i, a in enumerate(explanation.answers)]
    model = replace(explanation.model, name=HOSTILE[0])
    found = opened(samples.evidence_of(replace(explanation, answers=answers, model=model), HOSTILE[2]))
    act(found, WALK)
    shown = act(found, "", "texts('#strips button')")
    assert shown == [printable(word) for word in HOSTILE]
    assert found.value("document.querySelector('h1').textContent") == printable(" ".join(HOSTILE))
    assert found.value("document.querySelectorAll('img, iframe, object, a').length") == 0
    assert found.value("document.scripts.length") == 2
    shown = act(found, "await click('#tab-attribution')", "one('#view-attribution').textContent")
    assert printable(HOSTILE[2]) in shown


def test_the_browser_lets_no_string_become_markup(opened):
    found = opened(samples.encoder())
    tried = found.value("(() => { try { document.body.innerHTML = '<b>x</b>'; } catch (e) { return e.name; } })()")
    assert tried == "TypeError"
    assert "TrustedHTML" in found.errors[0]  # what was tried here
    found.errors.clear()


def test_the_matrix_by_keyboard_and_by_mouse(opened):
    explanation = samples.evidence_of(samples.encoder())
    found = opened(explanation)

    def pressed(*keys):
        steps = "".join(f"await press(one('#matrix'), '{key}');" for key in keys)
        return act(found, steps, "{ ...at(), text: one('#readout').textContent }".replace("at()", AT))

    shown = pressed("ArrowDown", "ArrowDown", "ArrowRight")
    row, column = shown["row"], shown["column"]
    assert (row, column) == (explanation.token + 1, 1)
    share = explanation.head.matrix[row, column]
    assert f"{100 * share:.1f}%" in shown["text"]
    shown = pressed("Enter")
    assert (shown["locked"], shown["token"]) == (True, row)
    assert "(locked)" in shown["text"]
    assert pressed("i")["alone"] == row
    shown = pressed("Escape")
    assert (shown["locked"], shown["alone"]) == (False, -1)

    def mouse(kind, detail, row=4, column=3):
        steps = f"""
          const [r, l] = [one("#matrix").getBoundingClientRect(), cutaway.page.layout];
          const clientX = r.x + l.x + ({column} + 0.5) * l.cell, clientY = r.y + l.y + ({row} + 0.5) * l.cell;
          const how = {{ bubbles: true, detail: {detail}, clientX, clientY }};
          one("#matrix").dispatchEvent(new PointerEvent("{kind}", how));
          await drawn()"""
        return act(found, steps, AT)

    shown = mouse("pointermove", 0, 6, 5)
    assert (shown["row"], shown["column"], shown["locked"]) == (6, 5, False)
    shown = mouse("click", 1)
    assert (shown["locked"], shown["token"], shown["column"], shown["alone"]) == (True, 4, 3, -1)
    assert mouse("pointermove", 0, 6, 5) == shown  # it is locked
    assert mouse("dblclick", 2)["alone"] == 4
    move = "const old = one('#heads [aria-pressed=true]'); old.focus(); await press(old, 'ArrowLeft')"
    layer, head = explanation.head.layer, explanation.head.head
    shown = act(found, move, f"{{ ...{AT}, focused: document.activeElement.getAttribute('aria-label') }}")
    assert (shown["layer"], shown["head"]) == (layer, max(head - 1, 0))
    assert shown["focused"].startswith(f"layer {layer}, head {max(head - 1, 0)}:")


AT = """(({ row, column, token, locked, alone, layer, head }) =>
  ({ row, column, token, locked, alone, layer, head }))(cutaway.page)"""


def test_first_and_last_by_keyboard(opened):
    explanation = samples.evidence_of(samples.decoder())
    found = opened(explanation)
    _, heads, _, columns = explanation.head.pattern.shape

    def pressed(selector, key, result):
        start = f"const it = one('{selector}'); it.focus(); await press(it, '{key}')"
        return act(found, start, result)

    text = "document.activeElement.textContent.trim()"
    assert pressed('#strips [tabindex="0"]', "End", text) == explanation.tokens[-1].label
    assert pressed('#strips [tabindex="0"]', "Home", text) == explanation.tokens[0].label
    assert pressed('#heads [tabindex="0"]', "End", "cutaway.page.head") == heads - 1
    assert pressed('#heads [tabindex="0"]', "Home", "cutaway.page.head") == 0
    pressed("#matrix", "ArrowDown", "null")
    assert pressed("#matrix", "End", "cutaway.page.column") == columns - 1
    assert pressed("#matrix", "I", "cutaway.page.alone") == explanation.token
    views = act(found, "", "all('[role=tab]').map((e) => e.id)")
    for key, view in (("End", views[-1]), ("ArrowRight", views[0]), ("ArrowLeft", views[-1]), ("Home", views[0])):
        assert pressed('[role=tab][tabindex="0"]', key, "document.activeElement.id") == view


def test_a_token_that_is_looked_at_is_pointed_at(opened):
    explanation = samples.evidence_of(samples.encoder_decoder())
    found = opened(explanation)
    text = act(
        found,
        "all('#strips .strip')[0].querySelectorAll('button')[3].click(); await drawn()",
        "one('#readout').textContent",
    )
    row = act(found, "", "cutaway.page.token")
    assert f"{100 * explanation.head.matrix[row, 3]:.1f}%" in text
    alone = "const fourth = all('#strips .strip')[0].querySelectorAll('button')[3];"
    alone += "fourth.dispatchEvent(new MouseEvent('dblclick', {bubbles: true}))"
    seen = act(found, alone, "[0, 1, 2].map((i) => [cutaway.page.seen(i, 3), cutaway.page.seen(3, i)])")
    assert seen == [[True, False]] * 3
    for name, tokens in enumerate((explanation.tokens, explanation.target)):  # each stack's token through its layers
        steps = f"await click('#tab-layers'); all('#strips .strip')[{name}].querySelectorAll('button')[3].click();"
        heading = act(found, steps + "await drawn()", "one('#view-layers h2').textContent")
        assert f"vector of {tokens[3].label} changes" in heading


@pytest.mark.skipif(
    not AXE.exists() and not browser.REQUIRED, reason="axe-core is not installed here: cd page && npm ci"
)
@pytest.mark.parametrize("make", [samples.decoder, samples.encoder_decoder])
def test_axe_finds_nothing(opened, make):
    found = opened(samples.evidence_of(make()))
    found.value(AXE.read_text("utf-8") + "; null")
    check = """
      for (const theme of [1, 2]) {
        await choose(one("#theme"), theme);
        for (const tab of all("[role=tab]")) {
          tab.click();
          await drawn();
          for (let i = 0; i < (form()?.length ?? 1); i++) {
            if (form()) await choose(form(), i);
            for (const part of all("details")) part.open = true;
            for (const ask of all(".ask")) ask.click();
            await drawn();
            const found = await axe.run(document, { resultTypes: ["violations"] });
            passed += found.passes.length;
            broken.push(...found.violations.map((rule) => `${tab.id} ${theme}: ${rule.id} at ${rule.nodes[0].html}`));
          }
        }
      }"""
    passed, broken = act(found, f"let passed = 0; const broken = []; {check}", "[passed, broken]")
    assert broken == []
    assert passed > 100


def test_the_lens_of_a_long_text_is_that_around_the_followed_token(opened):
    words = [f"w{i}" for i in range(150)]
    found = opened(samples.evidence_of(samples.encoder(words, 2, 2, text=" ".join(words))))
    act(found, "await click('#tab-layers')")
    for token, first in ((2, 0), (70, 48), (149, 86), (3, 0)):
        follow = f"all('#strips button')[{token}].click(); await drawn()"
        shown = act(found, follow, "texts('.lens thead th')")
        assert shown == words[first : first + 64]
        assert act(found, "", "texts('.lens th.chosen')") == [words[token]]
        keys = "one('.lens [tabindex=\"0\"]').focus(); await press(document.activeElement, 'ArrowRight')"
        read = act(found, keys, "one('#view-layers .readout').textContent")
        assert f"after {words[first + 1]}:" in " ".join(read.split())


def test_what_is_focused_is_not_under_the_tokens(opened):
    words = [f"w{i}" for i in range(150)]
    found = opened(samples.evidence_of(samples.encoder(words, 24, 2, text=" ".join(words))))
    steps = """await click('#tab-layers');
      await new Promise((sized) => setTimeout(sized, 200));
      const clear = [];
      for (const stop of all('summary, .ask, .lens [tabindex="0"], [role=tab][tabindex="0"]')) {
        scrollTo(0, 1e6);
        stop.focus();
        clear.push(stop.getBoundingClientRect().top - one('.held').getBoundingClientRect().bottom);
      }"""
    clear = act(found, steps, "clear")
    assert len(clear) > 4 and min(clear) > 0
    opens = "const ask = one('#view-layers .ask'); ask.click(); await drawn(); const was = all('.explained').length;"
    assert act(found, opens + "await press(ask, 'Escape')", "[was, all('.explained').length]") == [1, 0]


def test_lines_show_what_is_pointed_at(opened):
    explanation = samples.evidence_of(samples.encoder())
    found = opened(explanation)
    text = "one('#readout').textContent"
    keys = "await choose(form(), 1); await press(one('#lines'), 'ArrowDown'); await press(one('#lines'), 'ArrowDown')"
    row = explanation.token + 1
    best = explanation.head.matrix[row].max()
    assert f"looks most at {explanation.tokens[int(explanation.head.matrix[row].argmax())].label}" in (
        shown := " ".join(act(found, keys, text).split())
    )
    assert f"{100 * best:.1f}%" in shown
    assert act(found, "await press(one('#lines'), 'Enter')", AT)["token"] == row
    shown = " ".join(act(found, "await press(one('#lines'), 'ArrowRight')", text).split())
    assert "is looked at most by" in shown
    assert f"{100 * explanation.head.matrix[:, 0].max():.1f}%" in shown


def test_the_tokens_take_the_colour_of_the_chosen_method(opened):
    explanation = samples.evidence_of(samples.encoder())
    found = opened(explanation)
    act(found, "await click('#tab-attribution')")
    for i, scores in enumerate(explanation.evidence.attributions):
        steps = f"all('.methods input')[{i}].click(); await drawn()"
        titles = act(found, steps, "all('#strips button').map((e) => Number(e.title))")
        np.testing.assert_allclose(titles, scores.scores, rtol=5e-3)


def test_the_tree_and_the_path_of_a_token(opened):
    explanation = samples.evidence_of(samples.decoder())
    found = opened(explanation)
    shown = act(found, "await click('#tab-generation')", "texts('.tree text')")
    ways = explanation.evidence.branches
    assert len(shown) == len(explanation.steps) + sum(len(way.tokens) for way in ways)
    assert shown[-len(explanation.steps)] == f"{explanation.steps[0].picked.label} 41%"
    steps = "all('.tree .trunk text')[2].dispatchEvent(new MouseEvent('click', {bubbles: true})); await drawn()"
    assert act(found, steps, "all('.strip button[aria-pressed=true]').length && cutaway.page.step") == 2
    assert act(found, "", "all('.tree rect').every((e) => e.getBoundingClientRect().width > 80)")
    dots = act(found, "await click('#tab-layers')", "all('#view-layers circle.dot.first').length")
    assert dots >= 2 * (explanation.model.layers + 1)
    none = opened(samples.evidence_of(samples.encoder()))
    names = act(none, "", "all('[role=tab]').map((e) => e.id)")
    assert names == [f"tab-{name}" for name in ("attention", "layers", "attribution", "answer")]


def test_weighted_values_and_rollout_are_shown(opened):
    explanation = samples.evidence_of(samples.encoder())
    found = opened(explanation)
    head = explanation.head
    weighted = act(found, "all('#choices input')[0].click(); await drawn()", "cutaway.page.value(3, 2)")
    norm = explanation.evidence.value_norms["self"][head.layer, head.head, 2]
    assert weighted == pytest.approx(head.matrix[3, 2] * norm, abs=1e-3)
    steps = "for (const box of all('#choices input')) { box.click(); await drawn(); }"
    rolled = act(found, steps, "cutaway.page.value(3, 2)")
    assert rolled == pytest.approx(explanation.evidence.rollout["self"][head.layer, 3, 2], abs=1e-4)


def test_the_documentation_has_pictures_of_the_page(opened, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "recipes"))
    import page_pictures

    found = opened(samples.evidence_of(samples.encoder()))
    for name in page_pictures.PICTURES:
        page_pictures.take(found, name, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as taken:
            assert taken.width == page_pictures.WIDTH and taken.height > 600
            assert (sum(taken.getpixel((2, 2))) > 384) == (name == "page")
        assert (Path(__file__).parents[3] / "docs" / "images" / f"{name}.png").stat().st_size < 200_000


def at_width(found, width, *, mobile=False):
    found.send("Emulation.setDeviceMetricsOverride", session=True, width=width, height=844 if mobile else 900,
               deviceScaleFactor=1, mobile=mobile)  # fmt: skip
    found.value("new Promise((sized) => setTimeout(sized, 150))")


@pytest.mark.parametrize("make", [samples.encoder, samples.decoder, samples.encoder_decoder])
def test_the_answer_stands_on_the_first_screen_before_any_control(opened, make):
    explanation = samples.evidence_of(make())
    found = opened(explanation)
    for width, height in ((390, 844), (1280, 900)):
        at_width(found, width, mobile=width == 390)
        shown = act(
            found,
            "const said = one('.said'); scrollTo(0, 0)",
            """[said.textContent, said.getBoundingClientRect().bottom,
                all('button, select, input, a').filter((e) =>
                  e.compareDocumentPosition(said) & Node.DOCUMENT_POSITION_FOLLOWING).length]""",
        )
        assert shown[1] < height and shown[2] == 0
        best = max(explanation.answers, key=lambda answer: answer.logit)
        assert printable(explanation.generated or best.label) in shown[0]
        assert "not accounted for" in shown[0]
        first = explanation.evidence.attributions[0].scores
        most = max(
            (t for t in explanation.tokens if not t.special and t.index < len(first)), key=lambda t: first[t.index]
        )
        assert printable(most.label) in shown[0]


@pytest.mark.parametrize("make", [samples.encoder, samples.decoder, samples.encoder_decoder])
def test_on_a_phone_nothing_overflows_and_words_are_large_enough_for_fingers(opened, make):
    found = opened(samples.evidence_of(make()))
    at_width(found, 390, mobile=True)
    steps = """const wide = [], small = [];
      for (const tab of all("[role=tab]")) {
        tab.click();
        await drawn();
        await drawn();
        if (document.documentElement.scrollWidth > innerWidth) wide.push(tab.id);
        for (const target of all("button, select, input, summary")) {
          const { width, height } = target.getBoundingClientRect();
          const words = target.matches(".strip button, [role=tab], .lens button, select, summary, .more");
          if (width && (Math.min(width, height) < (words ? 44 : 20))) small.push(target.outerHTML.slice(0, 90));
        }
        // the grid of heads: 24 px and more from middle to middle (WCAG 2.5.8)
        const places = all("#heads button").map((e) => e.getBoundingClientRect());
        for (const one of places) {
          for (const other of places) {
            const apart = Math.hypot(one.x - other.x, one.y - other.y);
            if (apart && apart < 24) small.push(`heads ${apart}`);
          }
        }
      }"""
    assert act(found, steps, "[wide, small]") == [[], []]


def test_the_address_says_what_is_shown(opened):
    explanation = samples.evidence_of(samples.encoder())
    found = opened(explanation)
    place = "(({ view, layer, head, token, strayed }) => [view, layer, head, token, strayed])(cutaway.page)"
    settle = "await new Promise((settled) => setTimeout(settled, 150))"
    before = act(found, "", place)
    act(found, "await click('#tab-layers'); all('#strips button')[3].click(); await drawn()")
    act(found, "await click('#tab-attention'); all('#heads button')[17].click(); await drawn()")
    shown, address = act(found, "", place), found.value("location.hash")
    assert shown == ["attention", 1, 5, 3, False]
    given = dict(pair.split("=") for pair in address[1:].split("&"))
    assert (given["view"], given["layer"], given["head"], given["token"]) == ("attention", "1", "5", "3")
    assert given["text"].startswith("I+believe")
    back = act(found, f"history.back(); {settle}", place)
    assert (back[0], back[1:3]) == ("attention", before[1:3])
    assert act(found, f"history.back(); {settle}", place)[0] == "layers"
    assert act(found, f"history.go(2); {settle}", place) == shown
    again = found.address + address  # a copied link; then a reload of it
    for command, more in (
        ("Page.navigate", {"url": "about:blank"}),
        ("Page.navigate", {"url": again}),
        ("Page.reload", {}),
    ):
        found.send(command, session=True, **more)
        found.value("new Promise((loaded) => setTimeout(loaded, 1500))")
    assert act(found, "", place) == shown
    other = address.replace("I+believe", "I+doubt")
    assert act(found, f"location.hash = {other!r}; {settle}", place)[4] is True
    assert "another text" in act(found, "", "one('header').textContent")
    broken = "#view=nothing&layer=9999&head=-1&token=x&attention=cross&of=target"
    assert act(found, f"location.hash = {broken!r}; {settle}", place)[0:2] == [
        "attention",
        explanation.model.layers - 1,
    ]
    found.requests.clear()  # the page itself, which was opened again


def test_nothing_is_cut_without_a_hint(opened):
    words = [*samples.WORDS[:-1], "averyveryverylongtokenindeedthatfitsnowhere", "[SEP]"]
    text = "a long text " * 40
    explanation = samples.evidence_of(samples.encoder(words, text=text))
    found = opened(explanation)
    hidden = "one('h1').scrollHeight - one('h1').clientHeight"
    assert (
        act(found, "", hidden) > 20 and act(found, "", "one('header .more').textContent") == "Show all 480 characters"
    )
    assert act(found, "await click('header .more')", hidden) <= 0
    assert act(found, "", "one('h1').textContent") == printable(text)
    cut = """const cut = [];
      for (const tab of all("[role=tab]")) {
        tab.click();
        await drawn();
        for (const part of all("details")) part.open = true;
        await drawn();
        for (const e of all("main *, nav *")) {
          if (e.children.length === 0 && e.textContent.includes("…") && !e.closest("[title]"))
            cut.push(e.outerHTML.slice(0, 80));
        }
      }"""
    assert act(found, cut, "cut.filter((e) => !e.startsWith('<title'))") == []
    rows = act(found, "await click('#tab-answer')", "all('#view-answer td.part').length")
    more = "one('#view-answer table').closest('[role=tabpanel]').querySelector('.more').click(); await drawn()"
    assert act(found, more, "all('#view-answer td.part').length") == len(explanation.evidence.parts.names) > rows


def test_the_page_opens_on_the_head_that_the_answer_owes_most_to(opened):
    explanation = samples.evidence_of(samples.decoder())
    attention = explanation.head
    effect = np.zeros_like(attention.measures["entropy"])
    effect[2, 1] = 0.5
    effect[1, 3] = -0.25
    why = "switched off, it costs 0.4 nats"
    attention = replace(attention, measures={**attention.measures, "effect": effect}, layer=2, head=1, chosen=why)
    found = opened(replace(explanation, attention={"self": attention}))
    assert act(found, "", "[cutaway.page.measure, cutaway.page.layer, cutaway.page.head]") == ["effect", 2, 1]
    said = act(found, "", "one('#view-attention').textContent")
    assert f"layer 2, head 1 ({why})" in said and "From -0.250 (blue: against the answer) to 0.500" in said
    colours = act(found, "", "all('#heads button').map((e) => e.style.background)")
    red, _, blue = (int(part) for part in colours[2 * 4 + 1].strip("rgb()").split(","))
    assert red > blue
    red, _, blue = (int(part) for part in colours[1 * 4 + 3].strip("rgb()").split(","))
    assert red < blue


@pytest.mark.parametrize("kind", ["token-labels", "span", "choices", "states", "mask"])
def test_every_kind_of_answer_is_said(opened, kind):
    explanation = replace(samples.evidence_of(samples.encoder()), kind=kind)
    picked = explanation.answers[1]
    if kind in ("token-labels", "mask"):
        steps = [samples.Step(i, picked, explanation.answers) for i in (2, 5)]
        explanation = replace(explanation, steps=steps, token=5, answers=[] if kind == "mask" else explanation.answers)
    if kind == "states":
        explanation = replace(explanation, answers=[])
    found = opened(explanation)
    said = act(found, WALK, "one('.said').textContent")
    assert ("vector" if kind == "states" else picked.label) in said
    if kind == "token-labels":
        assert explanation.tokens[5].label in said
        labels = act(found, "await click('#tab-generation')", "texts('#view-generation .strip button')")
        assert [" ".join(label.split()) for label in labels] == [
            f"{explanation.tokens[i].label} {picked.label}" for i in (2, 5)
        ]
    heading = act(found, "await click('#tab-answer')", "texts('#view-answer h2').join(' ')")
    assert {"token-labels": "Label of", "span": "Answers in the text", "choices": "Choices"}.get(
        kind, "What made"
    ) in heading
