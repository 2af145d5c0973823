"""Attributions: what they sum to, what they leave alone, and captum's numbers."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_models import gap, texts, tiny

from cutaway.errors import InputError
from cutaway.inspect import (
    Target,
    input_x_gradient,
    integrated_gradients,
    measure_faithfulness,
    occlude,
    shapley_values,
    written_attribution,
)
from cutaway.inspect.perturbation import Masking
from cutaway.inspect.tower import logits_of, one_text

MODELS = (
    ("bert", "ForSequenceClassification"), ("bert", ""), ("gpt2", ""), ("llama", ""), ("t5", ""), ("bart", ""),
    ("bart", "ForSequenceClassification"),
)  # fmt: skip


def given_texts(family: str, ending: str, lengths: tuple[int, ...] = (7, 4)) -> dict[str, torch.Tensor]:
    found = texts(family, lengths)
    if family == "bart" and ending:  # this head reads the end-of-text token
        del found["decoder_input_ids"]
        for row, n in enumerate(lengths):
            found["input_ids"][row, n - 1] = 2
    return found


@pytest.mark.parametrize(("family", "ending"), MODELS)
def test_integrated_gradients_sum_to_the_difference(family: str, ending: str) -> None:
    model, batch = tiny(family, ending), given_texts(family, ending)
    for row in (0, 1):
        found = integrated_gradients(model, batch, row=row)
        assert found.residual is not None and found.residual < 0.01 and found.note == ""
        assert float(found.scores.sum()) == pytest.approx(
            found.value - found.base, abs=0.01 * abs(found.value - found.base)
        )
        alone = integrated_gradients(model, one_text(batch, row))
        assert torch.equal(found.scores, alone.scores) and found.to_dict()["target"]["index"] is not None
        with torch.no_grad():
            logits = logits_of(model, one_text(batch, row))
        assert found.value == pytest.approx(float(found.target.of(logits)), abs=1e-12)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_later_tokens_are_exactly_zero_in_a_decoder(family: str) -> None:
    for method in (integrated_gradients, input_x_gradient, occlude):
        found = method(tiny(family), texts(family, (7,)), Target(index=5, against=9, position=3))
        assert not found.scores[4:].any() and found.scores[:4].all(), method


def test_a_residual_that_stays_says_ranking_only() -> None:
    found = integrated_gradients(tiny("bert", "ForSequenceClassification"), texts("bert", (9,)), steps=1, most=1)
    assert found.steps == 1 and found.residual is not None
    assert found.note == ("ranking only" if found.residual > 0.05 else "")


@settings(max_examples=6)
@given(st.integers(0, 50), st.integers(2, 6), st.sampled_from(["bert", "gpt2", "llama"]))
def test_a_contrast_is_a_difference(seed: int, length: int, family: str) -> None:
    model, batch = tiny(family), texts(family, (length,), seed)
    a, b, both = (input_x_gradient(model, batch, t).scores for t in (Target(3), Target(8), Target(3, against=8)))
    assert gap(a - b, both) < 1e-9


def test_integrated_gradients_are_captums() -> None:
    model, batch = tiny("bert", "ForSequenceClassification"), texts("bert", (8,))
    ours = integrated_gradients(model, batch, Target(index=1), steps=64, most=64)
    game = Masking(model, batch, Target(index=1))
    theirs = IntegratedGradients(lambda x: model(inputs_embeds=x).logits).attribute(
        game.vectors.detach()[None], game.baseline.detach()[None], target=1, n_steps=64, method="gausslegendre"
    )
    assert gap(ours.scores, theirs[0].sum(-1)) < 1e-4
    saliency = InputXGradient(lambda x: model(inputs_embeds=x).logits)
    found = saliency.attribute(game.vectors.detach()[None].requires_grad_(), target=1)
    assert gap(input_x_gradient(model, batch, Target(index=1)).scores, found[0].sum(-1).detach()) < 1e-9


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_shapley_values_are_means_over_orders(family: str) -> None:
    model, batch = tiny(family), texts(family, (4,))
    found = shapley_values(model, batch)
    game = Masking(model, batch, None)
    want = torch.zeros(4, dtype=torch.float64)
    for order in permutations(range(4)):
        keep = torch.zeros(5, 4, dtype=torch.bool)
        for step, token in enumerate(order):
            keep[step + 1 :, token] = True
        want[list(order)] += game.values(keep).diff() / math.factorial(4)
    assert gap(found.scores, want) < 1e-9 and found.residual is not None and found.residual < 1e-9


def test_kernel_shap_comes_near_the_exact_values() -> None:
    model, batch = tiny("bert", "ForSequenceClassification"), texts("bert", (8,))
    exact = shapley_values(model, batch)
    assert (exact.steps, exact.note) == (256, "")
    for samples in (64, 200):
        kernel = shapley_values(model, batch, samples=samples)
        assert kernel.residual is not None and kernel.residual < 1e-9
        error = float(kernel.note.removeprefix("standard error up to "))
        assert error / 4 < float((kernel.scores - exact.scores).abs().max()) < 4 * error
        assert torch.equal(kernel.scores, shapley_values(model, batch, samples=samples).scores)
    assert gap(kernel.scores, exact.scores) < 0.1


def test_occlusion_is_a_difference() -> None:
    model, batch = tiny("gpt2"), texts("gpt2", (6,))
    found = occlude(model, batch, baseline=3)
    without = batch["input_ids"].clone()
    without[0, 2] = 3
    with torch.no_grad():
        values = [found.target.of(model(input_ids=ids).logits) for ids in (batch["input_ids"], without)]
    assert float(found.scores[2]) == pytest.approx(float(values[0] - values[1]), abs=1e-10)
    wide = occlude(model, batch, width=6)
    assert gap(wide.scores, torch.full_like(wide.scores, (wide.value - wide.base) / 6)) < 1e-9


def test_faithfulness() -> None:
    model, batch = tiny("bert", "ForSequenceClassification"), texts("bert", (8,))
    scores = shapley_values(model, batch).scores
    good, bad = (measure_faithfulness(model, batch, s) for s in (scores, -scores))
    assert good.deletion[0] == good.insertion[-1] == bad.deletion[0]
    assert gap(good.deletion[-1], good.insertion[0]) < 1e-12 and len(good.deletion) == 9
    assert gap(good.deletion.flip(0)[1:-1], bad.insertion[1:-1]) < 1e-12
    assert good.comprehensiveness > bad.comprehensiveness and good.sufficiency < bad.sufficiency
    assert good.deletion_area < bad.deletion_area and good.insertion_area > bad.insertion_area
    with pytest.raises(InputError, match="8 tokens"):
        measure_faithfulness(model, batch, scores[:3])


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_written_text(family: str) -> None:
    model = tiny(family)
    batch = {k: v for k, v in texts(family, (5, 3)).items() if not k.startswith("decoder")}
    start = {"decoder_start_token_id": 0} if family == "t5" else {}
    batch["input_ids"], batch["attention_mask"] = batch["input_ids"].flip(1), batch["attention_mask"].flip(1)
    ids = model.generate(**batch, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0, **start)
    found = written_attribution(model, batch, ids, row=1)
    n = 3 if family == "t5" else 5
    assert found.scores.shape == (3, n) and torch.equal(found.written, ids[1, -3:])
    if family == "gpt2":
        assert all(not row[3 + t :].any() and row[: 3 + t].all() for t, row in enumerate(found.scores))
    assert all(r is not None and r < 0.05 for r in found.residuals)
    assert written_attribution(model, batch, ids, method=occlude).residuals == [None] * 3


def test_wrong_targets() -> None:
    model, batch = tiny("bert", "ForSequenceClassification"), texts("bert", (5,))
    for target, message in (
        (Target(index=9), "index=9"),
        (Target(position=0), "one answer"),
    ):
        with pytest.raises(InputError, match=message):
            integrated_gradients(model, batch, target)
    with pytest.raises(InputError, match="position=9"):
        occlude(tiny("gpt2"), texts("gpt2", (5,)), Target(position=9))
    with pytest.raises(InputError, match="baseline"):
        occlude(model, batch, baseline="none")
    with pytest.raises(InputError, match="width"):
        occlude(model, batch, width=6)
    with pytest.raises(InputError, match="no logits"):
        occlude(tiny("bert", "Model"), batch)
