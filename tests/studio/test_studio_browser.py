"""The studio as a reader meets it: in Chromium, with nothing but its own server."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import browser
import numpy as np
import pytest
import studio_app
import torch

from cutaway.inspect.explainer import explain, load_model
from cutaway.show.label import printable

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None and not browser.REQUIRED, reason=browser.MISSING)

AXE = Path(__file__).parents[2] / "page" / "node_modules" / "axe-core" / "axe.min.js"
TEXT = "i believe that the eu is great ."
HANDS = """
const nap = (ms) => new Promise((done) => setTimeout(done, ms));
const one = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const until = async (what, ms = 30000) => {
  const end = performance.now() + ms;
  while (!what()) { if (performance.now() > end) throw new Error("waited for " + what); await nap(20); }
};
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


@pytest.fixture
def opened(studio, tmp_path):
    pages = []

    def open_page(state="", size="1280,1000", held=studio):
        address = held.page + (f"&{state}" if state else "")
        pages.append((browser.Page(address, tmp_path / f"profile{len(pages)}", size=size), held.url))
        return pages[-1][0]

    yield open_page
    for found, url in pages:
        found.close()
        assert [address for address in found.requests if not address.startswith((url, "blob:", "data:"))] == []
        assert found.errors == []


def act(found, steps, result="null"):
    return found.value(f"(async () => {{ {HANDS} {steps}; return {result}; }})()")


@pytest.fixture(scope="module")
def loaded(folders):
    return {name: load_model(path) for name, path in folders.items()}


@pytest.mark.parametrize("name", ["labels", "text", "t5"])
def test_the_numbers_on_screen_are_the_library_s(opened, loaded, name):
    text = "i believe that the eu" if name == "text" else TEXT
    model, tokenizer = loaded[name]
    want = explain(text, model, tokenizer, max_new_tokens=0, evidence=True)
    found = opened()
    act(found, f"await model('{name}'); await type('{text}')")
    assert act(found, "", "all('#strips .strip')[0].innerText.split('\\n')") == [t.label for t in want.tokens]
    for kind, attention in want.attention.items():
        layers, heads, rows, columns = attention.pattern.shape
        steps = f"""if (cutaway.page.kind !== '{kind}') cutaway.page.turnTo('{kind}');
          one('#as-table').open = true;
          const read = [];
          for (let l = 0; l < {layers}; l++) for (let h = 0; h < {heads}; h++) {{
            cutaway.page.choose(l, h); await nap(0);
            await until(() => all('#as-table td.number').some((cell) => cell.textContent !== '0.0'));
            read.push(all('#as-table td.number').map((cell) => Number(cell.textContent)));
          }}"""
        read = act(found, steps, "read")
        assert rows * columns <= 900  # the whole head is in the table
        np.testing.assert_allclose(np.reshape(read, attention.pattern.shape), 100 * attention.pattern, atol=0.051)
    shown = act(found, "await click('#tab-answer'); await until(() => one('#view-answer .bar'))",
                "all('#view-answer .bar').map((bar) => bar.innerText)")  # fmt: skip
    for answer in want.answers[:3]:
        assert any(answer.label in line and f"{100 * answer.probability:.1f}%" in line for line in shown)
    ready = "await click('#tab-attribution'); await until(() => all('#view-attribution [type=radio]').length >= 3)"
    cells = act(found, ready, "all('#view-attribution td.number').map((cell) => Number(cell.textContent))")
    scores = np.stack([a.scores for a in want.evidence.attributions], 1)
    np.testing.assert_allclose(np.reshape(cells, scores.shape), scores, rtol=6e-3, atol=1e-4)


def test_typing_shows_each_text_in_order_and_loses_none_at_the_end(opened):
    found = opened()
    words = "i believe that the eu is great and very good"
    steps = f"""await model('labels');
      const shown = [];
      const look = () => {{ if (shown.at(-1) !== cutaway.studio.shown) shown.push(cutaway.studio.shown); }};
      const stop = setInterval(look, 1);
      for (let i = 1; i <= {len(words)}; i++) {{ enter(one('#text'), {words!r}.slice(0, i)); await nap(50); }}
      await until(() => cutaway.studio.shownText === {words!r});
      await nap(20); clearInterval(stop)"""
    shown, typed, text = act(
        found, steps, "[shown, cutaway.studio.typed, all('#strips button').map((b) => b.innerText)]"
    )
    assert shown == sorted(shown) and shown[-1] == typed and len(shown) > 3
    assert text[1:-1] == words.split()


def test_the_address_holds_the_whole_state(opened, studio):
    found = opened()
    act(found, f"await view('labels', '{TEXT}', 'attention'); cutaway.page.choose(1, 2); "
               "all('#strips button')[4].click(); "
               "await nap(50); await click('#tab-layers'); await nap(100)")  # fmt: skip
    address = found.value("location.hash")
    assert studio_app.KEY not in address
    for part in ("model=labels", "view=layers", "layer=1", "head=2", "token=4"):
        assert part in address
    other = opened(address[1:])
    state = "(({ studio, page }) => [studio.model, studio.text, page.view, page.layer, page.head, page.token])(cutaway)"
    act(other, f"await until(() => cutaway.studio.shownText === '{TEXT}')")
    assert other.value(state) == ["labels", TEXT, "layers", 1, 2, 4]
    act(found, "history.back(); await until(() => cutaway.page.view === 'attention')")
    found.value("void location.reload()")
    time.sleep(0.5)
    end = time.monotonic() + 30
    while found.value("globalThis.cutaway?.studio?.shownText") != TEXT:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert found.value(state)[0] == "labels"


def test_writing_branches_and_the_last_distribution(opened, loaded):
    model, tokenizer = loaded["text"]
    found = opened()
    act(found, f"await view('text', '{TEXT}', 'write'); cutaway.writing.tokens = 8; "
               "await click('#begin'); "
               "await until(() => cutaway.writing.nodes.length && !cutaway.writing.running)")  # fmt: skip
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    want = model.generate(ids, max_new_tokens=8, do_sample=False)[0].tolist()
    path = "cutaway.writing.path.map((at) => cutaway.writing.nodes[at].id)"
    assert found.value(path) == want
    first = len(ids[0])
    branch = f"""all('#written button')[{first}].click(); await nap(20);
      const picked = all('#alternatives li')[1].querySelector('button'); picked.click();
      await until(() => cutaway.writing.leaves.length === 2 && !cutaway.writing.running)"""
    act(found, branch)
    with torch.no_grad():
        second = model(input_ids=ids).logits[0, -1].topk(2).indices[1]
    more = model.generate(torch.cat((ids, second[None, None]), 1), max_new_tokens=8, do_sample=False)[0].tolist()
    assert found.value(path) == more
    act(found, "all('#branches button')[0].click(); await nap(20)")
    assert found.value(path) == want
    act(
        found,
        "await until(() => cutaway.writing.last); enter(one('#temperature'), '2'); "
        "enter(one('#top-p'), '0.3'); await nap(20)",
    )
    with torch.no_grad():
        p = (model(input_ids=torch.tensor([more[:-1]])).logits[0, -1] / 2).softmax(-1).sort(descending=True).values
    shown = act(found, "", "all('#redrawn .number').map((cell) => cell.textContent)")
    assert [float(text.partition("%")[0]) for text in shown] == pytest.approx((100 * p[:12]).tolist(), abs=0.06)
    left = ((p.cumsum(0) - p) >= 0.3)[:12].tolist()
    assert ["left out" in text for text in shown] == left


def test_a_head_is_switched_off_and_the_change_goes_through_every_view(opened, loaded):
    model, tokenizer = loaded["labels"]
    found = opened()
    act(found, f"await view('labels', '{TEXT}', 'lab'); "
               "await until(() => one('#answer-after')); await click('#sweep'); "
               "await until(() => all('#effects button').length === 8); "
               "await until(() => !one('#cancel'))")  # fmt: skip
    effects = act(found, "", "all('#effects button').map((cell) => Number(cell.dataset.effect))")
    at = int(np.argmax(np.abs(effects)))
    before = found.value("document.querySelector('#answer-after').innerText")
    act(
        found, f"all('#effects button')[{at}].click(); await until(() => one('#answer-after').innerText !== {before!r})"
    )
    with torch.no_grad(), model.edit({f"blocks.{at // 4}.attn.head.{at % 4}.out": 0}):
        p = model(**tokenizer(TEXT, return_tensors="pt")).logits[0].softmax(-1)
    shown = found.value("document.querySelector('#answer-after').innerText")
    assert all(f"{100 * share:.1f}%" in shown for share in p.tolist())
    assert found.value("document.querySelector('#answer-before').innerText").split("\n")[1:] == before.split("\n")[1:]
    shown = act(found, "await click('#tab-answer'); await nap(50)", "one('#view-answer').innerText")
    assert all(f"{100 * share:.1f}%" in shown for share in p.tolist())
    assert "changed in the lab (1)" in act(found, "", "one('#status').innerText")
    act(
        found,
        "await click('#tab-lab'); await click('#clear'); "
        f"await until(() => one('#answer-after')?.innerText === {before!r})",
    )


def test_views_are_kept(opened, studio):
    found = opened()
    act(found, f"await view('labels', '{TEXT}', 'keep'); await until(() => one('#python')); "
               "enter(one('#kept-title'), 'mine'); await click('#keep'); "
               "await until(() => one('#kept li button'))")  # fmt: skip
    assert TEXT in found.value("document.querySelector('#python').textContent")
    act(found, "await type('a bad film .'); one('#kept li button').click()")
    act(found, f"await until(() => cutaway.studio.shownText === '{TEXT}')")
    for form in ("png", "svg", "html", "json", "safetensors"):
        act(found, f"await click('#save-{form}'); await until(() => !one('#save-{form}').disabled)")
    act(found, "await until(() => !one('[role=alert]')); [...all('#kept li button')].at(-1).click(); "
               "await until(() => one('#kept li').innerText.startsWith('Nothing'))")  # fmt: skip


def test_hostile_texts_and_names_are_shown_as_text(opened, studio, folders, tmp_path_factory):
    pieces = [
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "\u202eevil",
        "&lt;b&gt;",
        "${x}",
        "<!--",
    ]
    found = opened()
    act(found, "await model('labels')")
    for piece in pieces:
        act(found, f"await type({piece!r})")
        assert act(found, "", "document.querySelectorAll('img, iframe, object').length") == 0
        assert act(found, "", "document.scripts.length") == 1
    labels = {"<b>model</b><img src=x onerror=alert(1)>": folders["labels"], "\u202ename{x}": folders["vectors"]}
    kept = tmp_path_factory.mktemp("hostile")
    with studio_app.opened({name.replace("\u202e", "R"): path for name, path in labels.items()}, kept) as held:
        page = opened(held=held)
        options = act(page, "await until(() => cutaway.studio.id)", "all('#model option').map((o) => o.textContent)")
        assert any(option.startswith("<b>model</b>") for option in options)
        assert page.value("document.querySelectorAll('img, b').length") == 0
        page.close()
        page.close = lambda: None
    assert printable("\u202e") == "<U+202E>"


def test_another_site_s_page_cannot_call_the_studio(opened, studio, tmp_path):
    """A page of another origin on this machine: its calls are refused, and it cannot frame the studio."""
    site = tmp_path / "other.html"
    site.write_text("<!doctype html><html data-ready=yes><title>x</title><body></body></html>")
    other = browser.Page(site, tmp_path / "other")
    call = f"""fetch('{studio.url}/studio/run', {{ method: 'POST', headers: {{ 'content-type': 'application/json',
      authorization: 'Bearer {studio_app.KEY}' }}, body: JSON.stringify({{ model: 'labels', text: 'a' }}) }})
      .then((a) => a.status, () => 'refused')"""
    assert other.value(call) == "refused"
    plain = f"fetch('{studio.url}/studio/start', {{ mode: 'no-cors' }}).then((a) => a.type, () => 'refused')"
    assert other.value(plain) in ("opaque", "refused")
    other.errors.clear()  # the browser says what it refused
    other.close()


@pytest.mark.skipif(
    not AXE.exists() and not browser.REQUIRED, reason="axe-core is not installed here: cd page && npm ci"
)
@pytest.mark.parametrize("name", ["labels", "text", "t5"])
def test_axe_finds_nothing_serious(opened, name):
    found = opened(size="390,844" if name == "labels" else "1280,1000")
    found.value(AXE.read_text("utf-8") + "; null")
    check = f"""await model('{name}'); await type('{TEXT}');
      let passed = 0; const broken = [];
      for (const theme of [1, 2]) {{
        one('#theme').selectedIndex = theme; one('#theme').dispatchEvent(new Event('change', {{ bubbles: true }}));
        for (const tab of all('[role=tab]')) {{
          tab.click(); await nap(400);
          if (one('#begin') && theme === 1) {{ cutaway.writing.tokens = 4; one('#begin').click(); await nap(100);
            await until(() => !cutaway.writing.running && cutaway.writing.last); }}
          if (one('#sweep') && theme === 1) {{ one('#sweep').click();
            await until(() => all('#effects button').length); }}
          for (const part of all('details')) part.open = true;
          await nap(50);
          const found = await axe.run(document, {{ resultTypes: ['violations'] }});
          passed += found.passes.length;
          const bad = found.violations.filter((rule) => rule.impact === 'serious' || rule.impact === 'critical');
          broken.push(...bad.map((rule) => `${{tab.id}} ${{theme}}: ${{rule.id}} at ${{rule.nodes[0].html}}`));
        }}
      }}"""
    passed, broken = act(found, check, "[passed, broken]")
    assert broken == []
    assert passed > 100


def test_by_keyboard_alone(opened):
    """Tab reaches everything of a view, the arrows move among the tabs, Enter changes the model."""
    found = opened()
    act(found, f"await model('labels'); await type('{TEXT}')")

    def tab(times=1):
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                found.send(
                    "Input.dispatchKeyEvent", session=True, type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
                )

    def key(name, code, text=""):
        more = {"text": text} if text else {}
        found.send("Input.dispatchKeyEvent", session=True, type="keyDown", key=name, windowsVirtualKeyCode=code, **more)
        found.send("Input.dispatchKeyEvent", session=True, type="keyUp", key=name, windowsVirtualKeyCode=code)

    found.value("document.activeElement.blur(); null")
    seen = []
    for _ in range(40):
        tab()
        seen.append(found.value("(document.activeElement.id || document.activeElement.className || '') + ''"))
        if seen[-1] == "tab-attention":
            break
    assert {"theme", "model", "text", "tab-attention"} <= set(seen)
    key("ArrowRight", 39)
    assert found.value("cutaway.page.view") == "layers"
    for _ in range(4):
        key("ArrowRight", 39)
    assert found.value("cutaway.page.view") == "lab"
    for _ in range(30):
        tab()
        if found.value("document.activeElement.id") == "add":
            break
    key("Enter", 13, "\r")
    act(found, "await until(() => cutaway.studio.changes.length === 1)")


@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_nothing_is_cut_at_any_width(opened, width):
    found = opened(size=f"{width},1000")
    found.send(
        "Emulation.setDeviceMetricsOverride", session=True, width=width, height=1000, deviceScaleFactor=1, mobile=False
    )
    for name in ("labels", "text"):
        steps = f"""await model('{name}'); await type('{TEXT}'); const wide = [];
          for (const tab of all('[role=tab]')) {{ tab.click(); await nap(150);
            const {{ scrollWidth }} = document.documentElement;
            if (scrollWidth > innerWidth) wide.push(tab.id + ' ' + scrollWidth); }}"""
        assert act(found, steps, "wide") == []
    assert len(base64.b64decode(found.send("Page.captureScreenshot", session=True)["data"])) > 10_000
