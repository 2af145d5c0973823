"""Words that a mask hides in the middle of a text, for all that looks into a run: they keep their places, and what is
said of the others is what the model says of that text and that mask.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.pairs import gap, pair, texts
from torch import Tensor

from cutaway import inspect
from cutaway.inspect.target import Target

CLOSE = 1e-5
HIDDEN = (3, 5)


@pytest.fixture(scope="module", params=["bert", "roberta", "modernbert", "gpt2", "llama", "mistral"])
def case(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Tensor]]:
    """A model and one text of 8 tokens between padding, two of them hidden."""
    ending = {"gpt2": "LMHeadModel", "llama": "ForCausalLM", "mistral": "ForCausalLM"}.get(
        request.param, "ForSequenceClassification"
    )
    ours = pair(request.param, ending, pad_token_id=0, eos_token_id=2)[1]
    ids, mask = torch.zeros(1, 12, dtype=torch.int64), torch.zeros(1, 12, dtype=torch.int64)
    ids[0, 2:10], mask[0, 2:10] = texts((8,))[0], 1
    mask[0, [2 + i for i in HIDDEN]] = 0
    return ours, {"input_ids": ids, "attention_mask": mask}


def answer(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        logits = model(**inputs).logits
    return logits[0] if logits.dim() == 2 else logits[0, int(inputs["attention_mask"][0].nonzero()[-1, 0])]


@pytest.mark.parametrize("method", ["occlude", "shapley_values", "integrated_gradients", "input_x_gradient"])
def test_attributions_are_of_the_text_as_it_is_masked(case: tuple[Any, dict[str, Tensor]], method: str) -> None:
    model, inputs = case
    found = getattr(inspect, method)(model, inputs, Target(index=1))
    assert found.scores.shape == (8,)
    assert float(found.scores[list(HIDDEN)].abs().max()) < CLOSE * float(found.scores.abs().max())
    assert abs(found.value - float(answer(model, inputs)[1])) < CLOSE * max(1.0, abs(found.value))
    if found.residual is not None and method == "shapley_values":
        assert found.residual < 1e-3


def test_what_occlusion_takes_away_is_one_vector(case: tuple[Any, dict[str, Tensor]]) -> None:
    """By hand: the same text and mask, with another token's vector in one place."""
    model, inputs = case
    found = inspect.occlude(model, inputs, Target(index=1), baseline=7)
    shown = [i for i in range(8) if i not in HIDDEN]
    for i in shown:
        other = inputs["input_ids"].clone()
        other[0, 2 + i] = 7
        drop = found.value - float(answer(model, {**inputs, "input_ids": other})[1])
        assert abs(float(found.scores[i]) - drop) < 1e-4 * max(1.0, float(found.scores.abs().max()))


def test_what_is_recorded_stands_where_the_word_stands(case: tuple[Any, dict[str, Tensor]]) -> None:
    model, inputs = case
    alone = {name: value[:, 2:10] for name, value in inputs.items()}
    real = inputs["attention_mask"][0].bool()
    places = ("embed", "blocks.1.attn.q", "blocks.1.attn.pattern", "blocks.1.attn.head.1.out", "blocks.2.resid")
    with torch.no_grad():
        with model.record(*places) as r:
            model(**inputs)
        with model.record(*places) as one:
            model(**alone)
    shown = alone["attention_mask"][0].bool()
    for place in places:
        padded, own = r[place][0], one[place][0]
        if place.endswith("pattern"):
            assert not own[:, :, ~shown].any() and not padded[:, :, ~real].any()
            assert gap(padded[:, real][:, :, real], own[:, shown][:, :, shown]) < CLOSE
        else:
            assert not own[~shown].any() and not padded[~real].any()
            assert gap(padded[real], own[shown]) < CLOSE


def test_edits_reach_the_word_that_is_named(case: tuple[Any, dict[str, Tensor]]) -> None:
    """A place after a hidden word is the padded column, whatever the packing."""
    model, inputs = case
    with model.record("blocks.0.resid", "blocks.1.resid") as plain, torch.no_grad():
        model(**inputs)
    column = 2 + 6

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, column] += 1.0
        return x

    with model.edit({"blocks.0.resid": change}), model.record("blocks.0.resid") as r, torch.no_grad():
        model(**inputs)
    moved = (r["blocks.0.resid"] - plain["blocks.0.resid"]).abs().amax(-1)[0] > 0.5
    assert moved.nonzero()[:, 0].tolist() == [column]
