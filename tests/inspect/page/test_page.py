from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import inspect_samples as samples
import numpy as np
import pytest
from test_packing import unpack

from cutaway.inspect.explanation import Evidence, LensGrid
from cutaway.inspect.page import page
from cutaway.inspect.page.guide import GUIDE

ROOT = Path(__file__).parents[3]
HOSTILE_TEXT = "</script><img src=x onerror=alert(1)> <!-- <script> \u2028\u2029 \u202e \x00 😀 \ud800 &lt;"


class Reader(HTMLParser):
    """Collects elements, and the content of script and style elements."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.blocks, self.open = [], [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((tag, name, value) for name, value in attrs)
        self.open = (tag, dict(attrs)) if tag in ("script", "style") else None

    def handle_data(self, data):
        if self.open:
            self.blocks.append((*self.open, data))

    def handle_endtag(self, tag):
        self.open = None


def data_of(text):
    return json.loads(next(content for _, attrs, content in Reader(text).blocks if attrs.get("id") == "run"))


def hostile():
    return samples.encoder(samples.HOSTILE, text=HOSTILE_TEXT)


@pytest.mark.parametrize("make", [samples.encoder, samples.decoder, samples.encoder_decoder, hostile])
def test_the_policy_allows_this_script_and_style_only(make):
    reader = Reader(page.render(make()))
    policy = next(v for t, n, v in reader.attributes if n == "content" and "default-src" in v)
    hashes = re.findall(r"(script|style)-src '(sha256-[^']+)'", policy)
    own = {
        tag: "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        for tag, attrs, content in reader.blocks
        if attrs.get("type") != "application/json"
    }
    assert dict(hashes) == own
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert policy.endswith("; require-trusted-types-for 'script'; trusted-types 'none'")  # no string becomes markup
    assert policy.count("-src") == 3


def test_nothing_is_loaded_and_no_handler_is_inline():
    reader = Reader(page.render(hostile()))
    assert not [a for a in reader.attributes if a[1] in ("src", "href", "style") or a[1].startswith("on")]
    assert reader.tags.count("script") == 2
    assert "img" not in reader.tags


def test_hostile_text_stays_data():
    text = page.render(hostile())
    assert text.count("</script>") == 2
    start = text.index('id="run">') + len('id="run">')
    block = text[start : text.index("</script>", start)]
    assert block.isascii()
    assert not set("<>&") & set(block)
    read = json.loads(block)
    assert read["text"].startswith("</script><img src=x onerror=alert(1)> <!-- <script>")
    assert [token["token"] for token in read["tokens"]] == samples.HOSTILE
    assert "\x00" not in text
    text.encode("utf-8")  # the lone surrogate is escaped


def test_the_attention_can_be_read_back():
    explanation = samples.encoder_decoder()
    for name, entry in data_of(page.render(explanation))["attention"].items():
        error = entry["packed"]["error"]
        assert error < 1e-4
        np.testing.assert_allclose(unpack(entry["packed"]), explanation.attention[name].pattern, atol=error + 1e-7)


def test_the_script_builds_no_markup_from_text():
    script = next(c for t, a, c in Reader(page.render(samples.encoder())).blocks if t == "script" and not a)
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
        refused = script.count(f"!==`{way}`")  # Svelte names innerHTML where it leaves it out
        assert script.count(way) == refused


@pytest.mark.parametrize(("length", "most"), [(128, 2.5e6), (512, 10e6)])
def test_long_texts_stay_small(length, most):
    """With rollout too, for weights that are random, which no code makes small; those of a model are smaller."""
    explanation = samples.encoder([f"w{i}" for i in range(length)], 12, 12)
    pattern = explanation.attention["self"].pattern
    text = page.render(replace(explanation, evidence=Evidence(rollout={"self": pattern.mean(1)})))
    assert len(text) <= most
    packed = data_of(text)["attention"]["self"]["packed"]
    assert np.abs(unpack(packed) - pattern).max() <= packed["error"] + 1e-7
    assert packed["error"] < (5e-4 if length == 128 else 5e-3)


def test_the_build_is_that_of_the_sources():
    """`make page` writes what is compared here, so that a forgotten build, or one edited by hand, is noticed."""
    sources = ROOT / "page"
    built = json.loads((sources / "built.json").read_text())
    names = ["package.json", "package-lock.json", "stamp.ts", "tsconfig.json", "vite.config.ts"]
    paths = [sources / name for name in names] + [path for path in (sources / "src").rglob("*") if path.is_file()]
    named = sorted((path.relative_to(sources).as_posix(), sha256(path)) for path in paths)
    lines = "".join(f"{sha}  {name}\n" for name, sha in named)
    assert built.pop("sources") == hashlib.sha256(lines.encode()).hexdigest(), "say: make page"
    web = ROOT / "cutaway" / "inspect" / "page" / "web"
    assert built == {path.name: sha256(path) for path in web.iterdir() if path.name != "frame.html"}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_script_carries_the_licences_of_what_is_in_it():
    script = (ROOT / "cutaway" / "inspect" / "page" / "web" / "page.js").read_text("utf-8")
    words = script[script.index("\n\n") : script.index("*/")].strip()
    assert "svelte 5" in words
    assert "Permission is hereby granted" in words
    assert words in (ROOT / "NOTICE").read_text("utf-8")


def test_the_lock_file_names_no_registry():
    lock = json.loads((ROOT / "page" / "package-lock.json").read_text())
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
    assert all("integrity" in entry for name, entry in lock["packages"].items() if name)


def test_labels_of_every_kind_are_made_visible():
    explanation = hostile()
    answers = [replace(answer, label="a\x00\u202eb") for answer in explanation.answers]
    lens = LensGrid("tokens", ["embed"], [[[1]]], np.ones((1, 1, 1)), np.ones((1, 1)), {"1": "c\u2066d"})
    found = Evidence(lens=lens, answer="\u202ee", missing={"lens": "f\x1b"})
    data = data_of(page.render(replace(explanation, answers=answers, evidence=found)))
    assert [answer["label"] for answer in data["answers"]] == ["a␀<U+202E>b"] * 2
    assert data["evidence"]["lens"]["labels"] == {"1": "c<U+2066>d"}
    assert data["evidence"]["answer"] == "<U+202E>e"
    assert data["evidence"]["missing"] == {"lens": "f␛"}


def test_each_question_mark_has_a_formula_a_paper_and_a_caution():
    assert {tuple(entry) for entry in GUIDE.values()} == {("shows", "formula", "paper", "caution")}
