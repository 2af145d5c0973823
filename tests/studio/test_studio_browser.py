"""The studio as a reader meets it: in Chromium, with nothing but its own server."""

from __future__ import annotations

import base64
import json
import re
import time

import browser
import numpy as np
import pytest
import studio_app
import torch
from models.test_sae_files import write_sae
from studio_page import AXE, act

from cutaway.inspect.explainer import explain, load_model
from cutaway.show.label import printable

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None and not browser.REQUIRED, reason=browser.MISSING)

TEXT = "i believe that the eu is great ."


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


def test_an_encoder_decoder_writes_with_cross_attention_and_branches(opened, loaded):
    model, tokenizer = loaded["t5"]
    found = opened()
    act(found, f"await view('t5', '{TEXT}', 'write'); cutaway.writing.tokens = 8; await click('#begin');"
               "await until(() => cutaway.writing.nodes.length > 1 && !cutaway.writing.running)")  # fmt: skip
    inputs = tokenizer(TEXT, return_tensors="pt")
    want = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist()
    path = "cutaway.writing.path.map((at) => cutaway.writing.nodes[at].id)"
    assert found.value(path) == want and len(want) > 3
    act(found, "all('#written button')[2].click(); await until(() => all('.looked').length === 2)")
    with torch.no_grad(), model.record("decoder.blocks.0.cross.pattern") as seen:
        model(**inputs, decoder_input_ids=torch.tensor([want[:-1]]))
    cross = seen["decoder.blocks.0.cross.pattern"][0, :, 1].mean(0)  # what the second token looked at, [source]
    titles = act(found, "", "[...all('.looked')[0].children].map((it) => [it.innerText, it.title])")
    assert [label for label, _ in titles] == tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    np.testing.assert_allclose([float(title[:-1]) for _, title in titles], 100 * cross, atol=0.25)
    act(found, "all('#alternatives li')[1].querySelector('button').click();"
               "await until(() => cutaway.writing.leaves.length === 2 && !cutaway.writing.running)")  # fmt: skip
    branch = found.value(path)
    assert branch[:2] == want[:2] and branch[2] != want[2]
    start = torch.tensor([branch[:3]])
    more = model.generate(**inputs, decoder_input_ids=start, max_new_tokens=8, do_sample=False)[0].tolist()
    assert branch == more


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
    act(
        found,
        "all('#branches button')[0].click(); await until(() => cutaway.writing.leaf === cutaway.writing.leaves[0])",
    )
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


def test_a_table_its_mistakes_and_a_row_in_the_views(opened, loaded):
    """The way of research: a file, its mistakes, the map, a row opened, and the table saved."""
    model, tokenizer = loaded["labels"]
    texts = ["a good film .", "a bad film .", 'great , "very" good', "not good", "i believe it ."]
    names = [str(model.config.id2label[i]) for i in range(3)]
    with torch.no_grad():
        p = [model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1) for text in texts]
    said = [names[int(row.argmax())] for row in p]
    true = [*said[:3], *(next(name for name in names if name != label) for label in said[3:])]
    lines = "\n".join('"{}",{}'.format(t.replace('"', '""'), label) for t, label in zip(texts, true, strict=True))
    found = opened()
    act(found, f"await view('labels', '{TEXT}', 'texts'); "
               f"const file = new File([{('review,label' + chr(10) + lines)!r}], 'rated.csv'); "
               "const held = new DataTransfer(); held.items.add(file); one('#file').files = held.files; "
               "one('#file').dispatchEvent(new Event('change', { bubbles: true })); await until(() => one('#label')); "
               "await click('#label'); await until(() => one('#map'))")  # fmt: skip
    cells = "all('#rows tbody tr').map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    rows = act(found, "", cells)
    assert [row[1] for row in rows] == texts and [row[2] for row in rows] == true
    assert [row[3].removesuffix("✗").strip() for row in rows] == said
    assert [row[4] for row in rows] == [f"{100 * float(row.max()):.1f}%" for row in p]
    assert found.value("document.querySelector('#accuracy').textContent") == "60.0%"
    choose = (
        "const list = one('#{}'); list.selectedIndex = 1; list.dispatchEvent(new Event('change', {{ bubbles: true }}))"
    )
    mistakes = act(found, f"{choose.format('only')}; await nap(20)", cells)
    assert [row[1] for row in mistakes] == texts[3:]
    least = act(found, f"{choose.format('order')}; await nap(20)", cells)
    assert [row[4] for row in least] == sorted((row[4] for row in mistakes), key=lambda c: float(c[:-1]))
    act(found, "await click('#color'); await until(() => all('#rows .word').length > 4)")
    act(found, "await click('#save-table')")
    first = least[0][1]
    act(found, f"one('#rows .row').click(); await until(() => cutaway.studio.shownText === {first!r})")
    assert found.value("cutaway.page.view") == "attention"


def test_two_texts_side_by_side(opened):
    found = opened()
    act(found, f"await view('labels', '{TEXT}', 'compare'); "
               "enter(one('#other-text'), 'i believe that the eu is bad .'); "
               "await click('#compare'); await until(() => one('#distance'))")  # fmt: skip
    assert "part first at" in found.value("document.querySelector('#parting').innerText")
    assert found.value("document.querySelectorAll('#distance td.cell').length") == 3 * 9  # one of ten words is another


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


SAVED = """
globalThis.saved = [];
const made = URL.createObjectURL.bind(URL);
URL.createObjectURL = (content) => { saved.push(content); return made(content); };
"""


def test_the_way_of_learning(opened, loaded):
    """A text is typed, a head chosen, switched off, and what was seen is saved: as a picture, a page, and Python."""
    model, tokenizer = loaded["labels"]
    found = opened()
    act(found, f"{SAVED}; await model('labels'); const words = '{TEXT}';"
               "for (let i = 1; i <= words.length; i++) { enter(one('#text'), words.slice(0, i)); await nap(15); }"
               f"await until(() => cutaway.studio.shownText === '{TEXT}');"
               "await until(() => all('#heads button, table.heads button').length >= 8);"
               "all('#heads button, table.heads button')[5].click(); await nap(50)")  # fmt: skip
    layer, head = found.value("[cutaway.page.layer, cutaway.page.head]")
    assert (layer, head) == (1, 1)
    act(found, "await click('#tab-lab'); await until(() => one('#answer-after')); await click('#add');"
               "await until(() => cutaway.studio.changes.length === 1 && !cutaway.studio.waiting);"
               "await until(() => both('#answer-after') !== both('#answer-before'))")  # fmt: skip
    assert found.value("document.querySelector('#changes').innerText").startswith("head 1 of layer 1: off")
    with torch.no_grad(), model.edit({"blocks.1.attn.head.1.out": 0}):
        p = model(**tokenizer(TEXT, return_tensors="pt")).logits[0].softmax(-1)
    shown = found.value("document.querySelector('#answer-after').innerText")
    assert all(f"{100 * share:.1f}%" in shown for share in p.tolist())
    act(found, "await click('#tab-keep'); await until(() => one('#python'))")
    code = found.value("document.querySelector('#python').textContent")
    assert "blocks.1.attn.head.1.out" in code and TEXT in code
    act(found, "await click('#save-png'); await until(() => saved.length === 1 && !one('#save-png').disabled);"
               "await click('#save-html'); await until(() => saved.length === 2)")  # fmt: skip
    kinds = act(
        found, "", "Promise.all(saved.map(async (it) => [it.type.split(';')[0], (await it.text()).slice(0, 15)]))"
    )
    assert [kind for kind, _ in kinds] == ["image/png", "text/html"]
    assert "PNG" in kinds[0][1] and kinds[1][1].lower() == "<!doctype html>"


def test_the_way_of_research(opened, loaded):
    """A CSV, its mistakes, the map, and a report that can be handed in."""
    model, tokenizer = loaded["labels"]
    names = [str(model.config.id2label[i]) for i in range(3)]
    texts = [f"{mood} {what} ." for mood in ("a good", "a bad", "great", "not a") for what in ("film", "eu", "it")]
    with torch.no_grad():
        said = [names[int(model(**tokenizer(t, return_tensors="pt")).logits[0].argmax())] for t in texts]
    true = [label if i % 4 else next(name for name in names if name != label) for i, label in enumerate(said)]
    content = "text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(texts, true, strict=True))
    found = opened()
    act(found, f"{SAVED}; await view('labels', '{TEXT}', 'texts');"
               f"const held = new DataTransfer(); held.items.add(new File([{content!r}], 'moods.csv'));"
               "one('#file').files = held.files; one('#file').dispatchEvent(new Event('change', { bubbles: true }));"
               "await until(() => one('#label')); await click('#label'); await until(() => one('#map'));"
               "const list = one('#only'); list.selectedIndex = 1;"
               "list.dispatchEvent(new Event('change', { bubbles: true })); await nap(30)")  # fmt: skip
    wrong = [text for i, text in enumerate(texts) if not i % 4]
    rows = act(found, "", "all('#rows tbody tr').map((row) => row.cells[1].innerText.trim())")
    assert rows == wrong
    act(found, "await click('#report'); await until(() => saved.length || one('[role=alert]'))")
    assert found.value("document.querySelector('[role=alert]')?.innerText ?? ''") == ""
    report = act(found, "", "saved[0].text()")
    assert "75.0%" in report and "moods.csv" in report
    words = re.sub(r"\s+|<[^>]*>", "", report)  # a mistake's tokens stand in a coloured box each
    assert [text for text in wrong if text.replace(" ", "") not in words] == []


def test_the_way_of_engineering(opened, folders, tmp_path_factory, tmp_path):
    """A checkpoint of a training is opened, its text branches, and it is compared with the one before."""
    root = tmp_path_factory.mktemp("runs") / "training"
    for step in (1, 2):
        model, tokenizer = load_model(folders["text"])
        if step == 2:
            with torch.no_grad():
                weight = model.get_output_embeddings().weight
                weight += 0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        model.save_pretrained(root / f"checkpoint-{step}")
        tokenizer.save_pretrained(root / f"checkpoint-{step}")
    history = [{"step": step, "epoch": step / 2, "loss": 3.0 - step} for step in (1, 2)]
    state = {"global_step": 2, "max_steps": 2, "epoch": 1.0, "log_history": history}
    (root / "trainer_state.json").write_text(json.dumps(state))
    with studio_app.opened({"labels": folders["labels"]}, tmp_path / "kept", (root.parent,)) as held:
        found = opened(held=held)
        last = str(root / "checkpoint-2")
        act(found, f"await type('{TEXT}'); await click('#tab-training'); await until(() => one('#stands'));"
                   "await until(() => all('button').some((it) => it.textContent === 'open this checkpoint'));"
                   "all('button').filter((it) => it.textContent === 'open this checkpoint')[1].click();"
                   f"await until(() => cutaway.studio.model === {last!r} && !cutaway.studio.waiting);"
                   "await until(() => cutaway.run.summary.includes('checkpoint-2'))")  # fmt: skip
        act(found, "await click('#tab-write'); cutaway.writing.tokens = 4; await click('#begin');"
                   "await until(() => cutaway.writing.nodes.length && !cutaway.writing.running);"
                   "const first = all('#written button').length - 4;"
                   "all('#written button')[first].click(); await nap(30);"
                   "all('#alternatives li')[1].querySelector('button').click();"
                   "await until(() => cutaway.writing.leaves.length === 2 && !cutaway.writing.running)")  # fmt: skip
        assert found.value("cutaway.writing.leaves.length") == 2
        act(found, "all('#written button').at(-2).click(); await until(() => one('#own-words'));"
                   "enter(one('#own-words'), ' great eu'); await click('#put');"
                   "await until(() => cutaway.writing.leaves.length === 3 && !cutaway.writing.running)")  # fmt: skip
        assert "great·eu" in found.value("document.querySelector('#written').innerText.replaceAll('\\n', '')")
        before = str(root / "checkpoint-1")
        act(found, "await click('#tab-compare'); await until(() => one('#other-model'));"
                   "const list = one('#other-model');"
                   f"list.selectedIndex = cutaway.studio.models.findIndex((it) => it.name === {before!r});"
                   "list.dispatchEvent(new Event('change', { bubbles: true })); await nap(20);"
                   "await click('#compare'); await until(() => one('#parting'), 60000)")  # fmt: skip
        parting = found.value("document.querySelector('#parting').innerText")
        assert "No state differs" in parting  # only the output matrix was moved
        kl = act(found, "", "all('#view-compare td.number').map((cell) => Number(cell.textContent))")
        assert max(kl[1::2]) > 0
        found.close()
        found.close = lambda: None


PIECES = [
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>",
    "javascript:alert(1)", "&lt;b&gt;&amp;", "${alert(1)}", "{{7*7}}", "<!--", "]]>",
    "\u202eevil\u202c", "\u0000\u0007\u001b[31m", "'\"`;--",
    "\\u003cb\\u003e", "<iframe srcdoc='<b>x'>", "<style>*{display:none}", "\ufeff\u200b\u2066x", "a\u0300" * 20,
    "=cmd|' /C calc'!A0", "<a href=//x.y>z</a>", "%3Cscript%3E",
]  # fmt: skip


def hostile(n):
    """Texts that would be markup, code, controls of direction, or escapes, if they were not text."""
    pieces = PIECES
    return [f"{i} {pieces[i % len(pieces)]}{pieces[(i * 7 + i // len(pieces)) % len(pieces)]}" for i in range(n)]


def test_two_hundred_hostile_texts_labels_and_names_are_shown_as_text(opened, studio):
    found = opened()
    rows = [{"text": text, "label": text[::-1], "<b>note</b>": text} for text in hostile(200)]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    act(found, f"await view('labels', '{TEXT}', 'texts'); const held = new DataTransfer();"
               f"held.items.add(new File([{json.dumps(content)}], '<img src=x onerror=alert(1)>.jsonl'));"
               "one('#file').files = held.files; one('#file').dispatchEvent(new Event('change', { bubbles: true }));"
               "await until(() => one('#label')); await click('#label');"
               "await until(() => one('#progress').innerText.includes('200 read'), 60000);"
               "await until(() => one('#map'))")  # fmt: skip
    seen, labels = [], []
    for number in range(4):
        seen += act(found, "", "all('#rows tbody tr').map((row) => row.cells[1].querySelector('bdi').textContent)")
        labels += act(found, "", "all('#rows tbody tr').map((row) => row.cells[2].textContent)")
        bad = "document.querySelectorAll('img, iframe, object, svg[onload], #rows b, #rows a, #rows style').length"
        assert found.value(bad) == 0
        if number < 3:
            act(found, "all('button').find((it) => it.textContent === 'Next').click(); await nap(30)")
    assert seen == [row["text"][:200] for row in rows]
    assert labels == [row["label"] for row in rows]
    assert found.value("document.scripts.length") == 1
    for number, piece in enumerate(hostile(12)):
        studio.ask("kept", action="keep", title=piece or "x", state=f"model=labels&text={number}")
    act(found, "await click('#tab-keep'); await until(() => all('#kept li button').length >= 24)")
    titles = act(found, "", "all('#kept li bdi').map((it) => it.textContent)")
    assert found.value("document.querySelectorAll('img, iframe, #kept b, #kept script').length") == 0
    assert any("<img src=x" in title for title in titles)
    for one in studio.http.get("/studio/kept").json()["kept"]:
        studio.ask("kept", action="delete", name=one["name"])


def test_features_are_seen_followed_and_switched_off(opened, folders, loaded, tmp_path):
    model, tokenizer = loaded["text"]
    width = model.config.hidden_size
    folder = write_sae(tmp_path / "sae", "topk", width, 48)
    with studio_app.opened({"text": folders["text"]}, tmp_path / "kept") as held:
        held.bench.attach([("blocks.1.resid", str(folder))])
        found = opened(held=held)
        act(found, f"await view('text', '{TEXT}', 'lab'); await until(() => one('#features button'));"
                   "all('#features button')[0].click(); await until(() => one('#feature-off'))")  # fmt: skip
        feature = found.value("Number(document.querySelector('#feature').value)")
        sae = model.attach_sae("blocks.1.resid", folder)
        try:
            with torch.no_grad(), model.record(sae.features) as r:
                model(**tokenizer(TEXT, return_tensors="pt"))
            column = "all('#features tbody tr').map((row) => Number(row.cells[3].innerText))"
            act(found, "await until(() => all('#features tbody tr').some((row) => Number(row.cells[3]?.innerText)))")
            np.testing.assert_allclose(act(found, "", column), r[sae.features][0, :, feature], rtol=6e-3, atol=1e-2)
            zero = "all('#features tbody tr').every((row) => !Number(row.cells[3].innerText))"
            act(found, "await click('#feature-off'); await until(() => cutaway.studio.changes.length === 1);"
                       f"await until(() => {zero})")  # fmt: skip
            with torch.no_grad(), model.edit(sae.scaled(feature)):
                p = model(**tokenizer(TEXT, return_tensors="pt")).logits[0, -1].softmax(-1)
            share = f"{100 * float(p.max()):.1f}%"
            act(found, f"await until(() => one('#answer-after').innerText.includes('{share}'))")
        finally:
            model.detach_sae(sae.name)
        act(found, "enter(one('#feature-texts'), 'i believe\\nthe eu is great\\n<b>x</b>');"
                   "await click('#feature-look');"
                   "await until(() => one('#exciting') || one('p[role=status].muted'))")  # fmt: skip
        assert found.value("document.querySelectorAll('#exciting b').length") == 0
        found.close()
        found.close = lambda: None


def test_heads_are_coloured_by_their_effect_once_it_is_here(opened, loaded):
    """Choosing it stays, while another text that has none yet shows the entropy."""
    found = opened()
    has = "until(() => 'effect' in cutaway.page.entry.measures)"
    act(found, f"await view('labels', {TEXT!r}, 'attention'); await {has};"
               "cutaway.page.measure = 'effect'; await nap(50)")  # fmt: skip
    want = explain(TEXT, *loaded["labels"], evidence=True).attention["self"].measures["effect"]
    shown = found.value("cutaway.page.entry.measures.effect")
    np.testing.assert_allclose(shown, want, rtol=1e-3, atol=1e-5)
    assert "effect" in found.value("document.querySelector('#heads button').title")
    act(found, "await type('i believe that .')")
    assert found.value("cutaway.page.shownMeasure") in ("entropy", "effect")
    act(found, f"await {has}; await nap(50)")
    assert "effect" in found.value("document.querySelector('#heads button').title")
