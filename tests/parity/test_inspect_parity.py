"""Lens, patching and contributions against plain computations with hooks in the reference library's GPT-2."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.pairs import FAMILIES, gap, inputs, load, pair
from parity.tiny_models import HEADS, make

from cutaway.inspect import Target, activation_patching, direct_logit_attribution, last_state, logit_lens

CLOSE = 1e-4


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    return pair("gpt2", "LMHeadModel")


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_familys_last_state_is_the_sum_of_its_parts(family: str) -> None:
    """And a language model's logit the sum of what they add to it, where its head is one matrix."""
    model, given = load(make(family), "Model").double(), inputs(family, (6, 6))
    found = last_state(model, given)
    assert gap(found.parts.sum(0), found.state) < 1e-12
    assert gap(found.state, model(**given).last_hidden_state) < 1e-12
    head = next((e for e in HEADS[family] if e in ("LMHeadModel", "ForCausalLM", "ForConditionalGeneration")), None)
    if head is None:
        return
    model, given = load(make(family, head), head).double(), inputs(family, (6,))
    assert gap(logit_lens(model, given).logits[-1], model(**given).logits) < 1e-12
    if not model.head_spec.dense:
        sums = direct_logit_attribution(model, given)
        assert sums.total == pytest.approx(sums.logit, abs=1e-10)


@torch.no_grad()
def test_the_lens(models: tuple[Any, Any]) -> None:
    theirs, ours = models
    given = inputs("gpt2", (7,))
    states = theirs(**given, output_hidden_states=True).hidden_states
    lens = logit_lens(ours, given)
    for state, found in zip(states[:-1], lens.logits[:-1], strict=True):
        assert gap(found, theirs.lm_head(theirs.transformer.ln_f(state))) < CLOSE
    assert gap(lens.logits[-1], theirs.lm_head(states[-1])) < CLOSE  # this one has had the norm already


@torch.no_grad()
def test_patching(models: tuple[Any, Any]) -> None:
    theirs, ours = models
    clean = inputs("gpt2", (6,))
    other = {"input_ids": clean["input_ids"].clone()}
    other["input_ids"][0, 2] = 50
    grid = activation_patching(ours, clean, other, ["blocks.*.resid"], Target(index=5, against=9))
    states = theirs(**clean, output_hidden_states=True).hidden_states

    def value(given: dict[str, torch.Tensor]) -> float:
        logits = theirs(**given).logits[0, -1]
        return float(logits[5] - logits[9])

    good, bad = value(clean), value(other)
    for layer in (0, 1):
        for at in range(6):

            def put(module: Any, args: Any, out: Any, at: int = at, layer: int = layer) -> Any:
                whole = isinstance(out, tuple)
                state = (out[0] if whole else out).clone()
                state[:, at] = states[layer + 1][:, at]
                return (state, *out[1:]) if whole else state

            handle = theirs.transformer.h[layer].register_forward_hook(put)
            found = (value(other) - bad) / (good - bad)
            handle.remove()
            assert float(grid.effect[layer, at]) == pytest.approx(found, abs=CLOSE)


@torch.no_grad()
def test_contributions(models: tuple[Any, Any]) -> None:
    """Of each feed-forward layer, whose result a hook can see."""
    theirs, ours = models
    given = inputs("gpt2", (6,))
    kept: dict[int, torch.Tensor] = {}
    handles = [
        block.mlp.register_forward_hook(lambda m, a, out, i=i: kept.update({i: out[0, -1]}))
        for i, block in enumerate(theirs.transformer.h)
    ]
    last = []
    handles.append(theirs.transformer.ln_f.register_forward_pre_hook(lambda m, args: last.append(args[0][0, -1])))
    theirs(**given)
    for handle in handles:
        handle.remove()
    norm, row = theirs.transformer.ln_f, theirs.lm_head.weight[5]
    scale = torch.sqrt(last[0].var(unbiased=False) + norm.eps)
    found = direct_logit_attribution(ours, given, Target(index=5))
    for i, out in kept.items():
        want = ((out - out.mean()) / scale * norm.weight) @ row
        assert float(found.values[found.names.index(f"blocks.{i}.mlp.out")]) == pytest.approx(float(want), abs=CLOSE)
