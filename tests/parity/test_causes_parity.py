"""What lenses, attributions, patches and probes must satisfy, in every family: random lengths, padding, dtypes."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.pairs import FAMILIES, gap, inputs, load
from parity.tiny_models import ALL_EXPERTS, ENCODER_DECODERS, HEADS, make

from cutaway.errors import InputError
from cutaway.inspect import (
    Target,
    TunedLens,
    activation_patching,
    attention_flow,
    attention_rollout,
    direct_logit_attribution,
    input_x_gradient,
    integrated_gradients,
    logit_lens,
    occlude,
    probe_layers,
    shapley_values,
)
from cutaway.inspect.tower import logits_of, one_text, tower_of

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}
LANGUAGE_HEADS = ("ForMaskedLM", "ForConditionalGeneration", "MTModel", "ForCausalLM", "LMHeadModel")
# a second model of a family lists one head alone, and has the others too
LANGUAGE = {
    family: next((e for e in LANGUAGE_HEADS if e in endings), "ForMaskedLM") for family, endings in HEADS.items()
}
MASKED = [family for family, ending in LANGUAGE.items() if ending == "ForMaskedLM"]
CAUSAL = [family for family in FAMILIES if family not in MASKED and family not in ENCODER_DECODERS]
DTYPES = st.sampled_from(list(CLOSE))
BATCHES = st.tuples(st.lists(st.integers(3, 9), min_size=1, max_size=3), st.sampled_from(["right", "left"]))


@cache
def model_of(family: str, dtype: torch.dtype) -> Any:
    """A language model; its weights are half as far apart as elsewhere, so that a path integral needs few steps."""
    theirs = make(family, LANGUAGE[family], **ALL_EXPERTS.get(family, {}))
    with torch.no_grad():
        for p in theirs.parameters():
            if p.dim() > 1 and p.requires_grad:
                p.mul_(0.5)
    return load(theirs, LANGUAGE[family]).to(dtype)


def test_every_family_is_here() -> None:
    assert set(LANGUAGE) == set(FAMILIES) == {*MASKED, *CAUSAL, *ENCODER_DECODERS}


ONE_MATRIX = ("eurobert",)  # encoders whose head for masked words is the output matrix alone


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=3)
@given(dtype=DTYPES, batch=BATCHES)
@torch.no_grad()
def test_the_last_state_is_the_answer(family: str, dtype: torch.dtype, batch: Any) -> None:
    """Through the lens; through a tuned lens that was not trained, as through the plain one; and part by part."""
    model, close = model_of(family, dtype), CLOSE[dtype]
    text = inputs(family, tuple(batch[0]), batch[1])
    real = tower_of(model).real(text)
    want = logits_of(model, text)
    lens = logit_lens(model, text)
    assert gap(lens.logits[-1][real], want[real]) < close
    assert float(lens.kl[-1][real].abs().max()) < 10 * close and float(lens.kl[:, real].min()) > -10 * close
    assert torch.equal(TunedLens(model).read(model, text).logits, lens.logits)
    alone = one_text(text, len(batch[0]) - 1)
    if family in MASKED and family not in ONE_MATRIX:  # the head has a layer of its own
        with pytest.raises(InputError, match="last_state"):
            direct_logit_attribution(model, alone)
        return
    found = direct_logit_attribution(model, alone, Target(index=7, against=3))
    scale = float(found.values.abs().max())
    assert abs(found.total - found.logit) < close * scale
    assert abs(found.logit - float(found.values.sum())) < close * scale


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=2)
@given(dtype=DTYPES, batch=BATCHES)
def test_attributions_sum_to_the_difference(family: str, dtype: torch.dtype, batch: Any) -> None:
    """To its hundredth, or it says how far not; the same in any batch; later tokens have none in a decoder."""
    model, text = model_of(family, dtype), inputs(family, tuple(batch[0]), batch[1])
    row = len(batch[0]) - 1
    alone = one_text(text, row)
    length = tower_of(model).real(alone).shape[1]
    target = Target(index=7, against=3, position=length // 2)
    found = integrated_gradients(model, text, target, row=row)
    missed = abs(float(found.scores.sum()) - (found.value - found.base))
    assert found.residual is not None and missed == pytest.approx(found.residual * abs(found.value - found.base))
    assert found.residual < 0.01 or (found.steps == 16 + 32 + 64 + 128 + 256 + 512 and missed < 0.01)  # kinks of a ReLU
    assert found.note == ("ranking only" if found.residual > 0.05 else "")
    again = integrated_gradients(model, alone, target)
    assert torch.equal(found.scores, again.scores)
    if not (model.architecture.decoder or model.architecture.stack).causal:
        return
    for method in (integrated_gradients, input_x_gradient, occlude, shapley_values):
        tower = "decoder" if family in ENCODER_DECODERS else None
        own = method(model, alone, target, tower=tower).scores
        assert not own[length // 2 + 1 :].any() and own[: length // 2 + 1].any(), method


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=2)
@given(dtype=DTYPES, length=st.integers(4, 8), at=st.integers(1, 3))
def test_a_layer_restores_everything_and_what_lies_before_nothing(
    family: str, dtype: torch.dtype, length: int, at: int
) -> None:
    model = model_of(family, dtype)
    clean = inputs(family, (length,))
    goal = Target(index=7, against=3)
    for which in ("encoder", "decoder") if family in ENCODER_DECODERS else (None,):
        own = tower_of(model, which)
        other = {**clean, own.ids: clean[own.ids].clone()}
        if other[own.ids].shape[1] <= at:
            continue
        other[own.ids][0, at] = (clean[own.ids][0, at] + 20) % 90 + 5
        whole = activation_patching(model, clean, other, own.layers("resid"), goal, each_position=False)
        # rounding weighs as much as the two answers are larger than what is between them
        close = CLOSE[dtype] * max(1.0, abs(whole.clean), abs(whole.corrupted)) / abs(whole.clean - whole.corrupted)
        assert float((whole.effect - 1).abs().max()) < close
        if own.spec.causal:
            places = [own.at("embed"), *own.layers("resid"), *own.layers("attn.z")]
            each = activation_patching(model, clean, other, places, goal)
            assert float(each.effect[:, :at].abs().max()) < close


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_flow_is_no_less_than_rollout(family: str) -> None:
    model, text = model_of(family, torch.float64), inputs(family, (4,))
    own = tower_of(model, "encoder" if family in ENCODER_DECODERS else None)
    with model.record(own.at("blocks.*.attn.pattern")) as r:
        model(**text)
    patterns = torch.stack([r[a][0] for a in own.layers("attn.pattern")])
    assert bool((attention_flow(patterns).capacity >= attention_rollout(patterns).shares[-1] - 1e-9).all())


@pytest.mark.parametrize("family", FAMILIES)
def test_probes_find_the_token_and_learn_their_control_by_heart(family: str) -> None:
    """Few kinds of tokens: whatever labels they are given, a probe of the first state knows them."""
    model = model_of(family, torch.float64)
    text = inputs(family, (8,) * 6)
    own = tower_of(model, "encoder" if family in ENCODER_DECODERS else None)
    text[own.ids] = text[own.ids] % 4 + 10
    found = probe_layers(model, text, text[own.ids] % 2, tower=own.prefix.rstrip(".") or None)
    assert len(found.places) == own.spec.n_layers + 1
    assert float(found.accuracy[0]) > 0.9 and float(found.control[0]) > 0.9 and found.majority < 0.9
    assert torch.equal(found.selectivity, found.accuracy - found.control)
