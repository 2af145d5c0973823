from __future__ import annotations

import io
from dataclasses import replace

import inspect_samples as samples
import numpy as np
import pytest
from rich.console import Console

from cutaway.inspect import terminal
from cutaway.inspect.explanation import Evidence, Scores


def shown(explanation, width=100, encoding="utf-8", measure="entropy", **console):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    terminal.show(explanation, Console(file=stream, width=width, highlight=False, **console), measure=measure)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def test_an_encoder_shows_everything():
    explanation = samples.encoder()
    text = shown(explanation)
    head = f"layer {explanation.head.layer}, head {explanation.head.head} (sharpest focus)"
    for part in ("##worthy", "1008", "30-36", "POSITIVE", "98.29%", "blocks.5.resid", head, "softmax"):
        assert part in text
    assert "\x1b" not in text


def test_a_decoder_shows_what_it_wrote():
    text = shown(samples.decoder())
    assert "Next token, the ten likeliest" in text
    assert "get to the point" in text
    assert "·word0 20%" in text


def test_an_encoder_decoder_shows_both_sides():
    text = shown(samples.encoder_decoder(), measure="distance")
    assert "cross attention" in text
    assert "decoder.embed" in text
    assert "encoder.embed" in text
    assert "by entropy" in text  # distance has no meaning across two texts


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("make", [samples.encoder, samples.decoder, samples.encoder_decoder])
def test_any_width(make, width):
    assert max(len(line) for line in shown(make(), width=width).splitlines()) <= width


def test_colour_where_the_terminal_has_it(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = shown(samples.encoder(), force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured
    assert "48;2;" in coloured
    plain = shown(samples.encoder(), force_terminal=True, color_system="truecolor", no_color=True)
    assert "48;2;" not in plain


def test_a_terminal_of_ascii_only():
    text = shown(samples.encoder(samples.HOSTILE), encoding="ascii")
    assert "[bold]x[/bold]" in text
    assert shown(samples.decoder(), encoding="ascii").isascii()


def test_tokens_are_never_commands_or_markup():
    text = shown(samples.encoder(samples.HOSTILE), width=140)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold]x[/bold]" in text
    assert "\x00" not in text


def test_a_long_text_shows_what_each_token_looks_at_most():
    text = shown(samples.encoder([f"word{i}" for i in range(64)], 12, 12))
    assert "looks most at" in text
    assert "word63" in text


def test_a_model_without_a_head_says_what_made_its_vector():
    scores = [0.1 * i for i in range(len(samples.encoder().tokens))]
    made = [
        Scores("integrated gradients", np.array(scores), 1.0, 0.0, 0.4, 64, ""),  # misses too much
        Scores("occlusion", np.array(scores[::-1]), 1.0, 0.0, None, 0, "a note"),
    ]
    evidence = Evidence(attributions=made, number="cosine to the whole text's vector")
    it = replace(samples.encoder(), kind="states", answers=[], evidence=evidence)
    text = " ".join(shown(it).split())
    first = it.tokens[0].label
    assert (
        f"occlusion of the cosine to the whole text's vector; no sum is promised; a note # token score 0 {first}"
        in text
    )
    cut = replace(it, evidence=Evidence(missing={"attribution": "300 tokens; made for at most 256."}))
    assert "is not shown: 300 tokens; made for at most 256." in " ".join(shown(cut).split())
    assert "the text becomes a vector" in " ".join(shown(replace(it, evidence=None)).split())


@pytest.mark.parametrize("kind", ["token-labels", "span", "choices"])
def test_other_heads_answer_under_their_own_name(kind):
    it = replace(samples.encoder(), kind=kind)
    if kind == "token-labels":
        it = replace(it, steps=[samples.Step(5, it.answers[1], it.answers)], token=5)
    text = shown(it)
    assert {"token-labels": "Label of eu", "span": "Answers in the text", "choices": "Choices"}[kind] in text
    assert "Next token" not in text and "generated" not in text
    assert ("The label of each token" in text) == (kind == "token-labels")
