"""Every object of `cutaway.inspect` shows itself: in a terminal, as HTML and in one line; hostile tokens stay text."""

from __future__ import annotations

import io
from dataclasses import replace
from html.parser import HTMLParser

import inspect_samples as samples
import numpy as np
import pytest
import torch
from inspect_models import texts, tiny
from rich.console import Console

import cutaway.inspect as inside
from cutaway.inspect.result import Result
from cutaway.inspect.trace.trace import Trace
from cutaway.show.label import printable
from cutaway.show.shown import Shown

HOSTILE = ["<script>alert(1)</script>", "\x00", "\u202eevil", "\x1b[31mred", "[bold]x[/bold]", "&amp;\u2028", "שלום"]
ACTING = {"script", "img", "iframe", "a", "link", "style", "object", "svg"}


class Tokenizer:
    """Calls token i by a hostile name."""

    all_special_ids = ()

    def convert_ids_to_tokens(self, id):
        return f"{HOSTILE[id % len(HOSTILE)]}{id}"

    def decode(self, ids, skip_special_tokens=False):
        return self.convert_ids_to_tokens(ids[0])


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attributes)

    def handle_data(self, data):
        self.text += data


def on_screen(found, **options):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=options.pop("encoding", "utf-8"))
    Console(file=stream, width=options.pop("width", 100), **options).print(found)
    stream.flush()
    return stream.buffer.getvalue().decode()


def checked(found):
    """The HTML's text, after what must hold of every object."""
    assert isinstance(found, Shown)
    line = repr(found)
    assert line.startswith(type(found).__name__ + "(") and len(line) < 600 and "\n" not in line
    read = Reader(found._repr_html_())
    assert not read.tags & ACTING
    assert read.attributes <= {"style", "class", "scope"}
    shown = on_screen(found)
    for text in (read.text, shown):
        assert not set("\x00\x1b\u202e\u2028") & set(text)
    assert max(map(len, shown.splitlines())) <= 100
    assert on_screen(found, encoding="ascii", width=60).isascii()
    return read.text


def test_a_notebook_shows_the_page_of_an_explanation_in_a_frame_that_reaches_nothing(tmp_path):
    import tiny as checkpoints

    explanation = inside.explain("a good film", str(checkpoints.classifier(tmp_path / "bert", 2)))
    bundle = explanation._repr_mimebundle_()
    assert bundle["text/plain"] == repr(explanation)
    frames = []

    class Frames(HTMLParser):
        def handle_starttag(self, tag, attributes):
            frames.append((tag, dict(attributes)))

    Frames().feed(bundle["text/html"])
    ((tag, own),) = frames  # the page is all in one attribute
    assert (tag, own["sandbox"]) == ("iframe", "allow-scripts")
    from cutaway.inspect.page.page import render

    assert own["srcdoc"] == render(explanation)


@pytest.fixture(scope="module")
def found():
    """One of each result, of tiny models."""
    gpt, bert = tiny("gpt2"), tiny("bert", "ForSequenceClassification")
    inputs, one = texts("gpt2"), texts("bert", (6,))
    single = texts("gpt2", (6,))
    target = inside.Target(index=1, against=0)
    with torch.no_grad(), gpt.record("blocks.*.attn.pattern", "logits") as recorder:
        gpt(**single)
    patterns = torch.stack([recorder[f"blocks.{i}.attn.pattern"][0] for i in range(3)])
    other = {**single, "input_ids": single["input_ids"].flip(1)}
    scores = inside.input_x_gradient(bert, one, inside.Target(index=1))
    resid = ("blocks.*.resid",)
    results = {
        "recording": recorder,
        "rollout": inside.attention_rollout(patterns),
        "flow": inside.attention_flow(patterns),
        "head scores": inside.head_scores(patterns, single["input_ids"][0]),
        "head clusters": inside.head_clusters(patterns, 3),
        "head importance": inside.gate_slopes(gpt, single, lambda out: out.logits[0, -1, 3]),
        "values": inside.value_norms(gpt, single, 0),
        "lens": inside.logit_lens(gpt, single),
        "parts": inside.direct_logit_attribution(gpt, single),
        "state": inside.last_state(gpt, single),
        "parts through the head": inside.head_attribution(bert, one),
        "attribution": inside.integrated_gradients(bert, one, inside.Target(index=1)),
        "shapley": inside.shapley_values(bert, one, inside.Target(index=1)),
        "faithfulness": inside.measure_faithfulness(bert, one, scores.scores, inside.Target(index=1)),
        "written": inside.written_attribution(gpt, single, torch.cat((single["input_ids"], torch.tensor([[7, 9]])), 1)),
        "patching": inside.activation_patching(gpt, single, other, resid, target),
        "path patching": inside.path_patching(gpt, single, other, "blocks.0.resid", ["blocks.2.resid"], target),
        "trace of causes": inside.causal_trace(gpt, single, [1], resid, target, draws=2),
        "ablation": inside.ablate(gpt, single, ("blocks.*.mlp.out",), target),
        "steering": inside.steering_vector(gpt, single, other, 1),
        "neurons": inside.top_neurons(gpt, single, top=3),
        "promoted": inside.promoted_tokens(gpt, 0, 2, top=4),
        "excited": inside.exciting_texts(gpt, [inputs], 0, 2, top=4),
        "probes": inside.probe_layers(gpt, texts("gpt2", (7, 7, 7, 7)), torch.tensor([0, 1, 0, 1])),
        "comparison": inside.compare(gpt, single, other),
        "strong features": inside.StrongFeatures(torch.randint(64, (6, 3)), torch.rand(6, 3), torch.full((6,), 3)),
        "reconstruction": inside.Reconstruction(0.75, 12.5, 0.25, 640, 3.0, 3.5, 8.0, 0.9),
    }  # fmt: skip
    return results, single["input_ids"]


def test_each_result_shows_itself(found):
    results, ids = found
    assert {type(r) for r in results.values()} >= set(Result.__subclasses__())
    for name, result in results.items():
        assert checked(result), name
        if isinstance(result, Result):
            checked(result.named(Tokenizer(), ids))
            assert result._names is None  # naming makes another one


def test_named_results_show_tokens_as_text(found):
    results, ids = found
    for name in ("rollout", "lens", "attribution", "patching"):
        own = ids if name != "attribution" else texts("bert", (6,))["input_ids"]
        text = checked(results[name].named(Tokenizer(), own))
        for id in own[0].tolist():
            assert printable(f"{HOSTILE[id % 7]}{id}").replace(" ", "·") in text, (name, id)


@pytest.mark.parametrize("make", [samples.encoder, samples.decoder, samples.encoder_decoder])
def test_an_explanation_and_its_trace(make):
    it = make()
    if it.kind == "labels":
        it = replace(samples.encoder([*HOSTILE, "x"], text="</p><script>"), certificate=None)
    states = {name: np.zeros((*s.norm.shape, 4), np.float32) for name, s in it.states.items()}
    for shown in (it, Trace(it, states, None, {"cutaway": "<b>"}, {"trace.hidden.self": 0.01})):
        text = checked(shown)
        assert it.model.name in text and f"layer {it.head.layer}, head {it.head.head}" in text
        assert all(printable(a.label) in text for a in it.answers)
    if it.kind == "labels":
        assert printable(HOSTILE[0]) in text


def test_colours_are_those_of_the_terminal(found):
    rollout = found[0]["rollout"]
    assert "48;2;" in on_screen(rollout, force_terminal=True, color_system="truecolor")
    assert "\x1b" not in on_screen(rollout)
