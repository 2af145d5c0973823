"""Rollout is the sum over all paths; flow is at least rollout."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_models import texts as batch
from inspect_models import tiny

from cutaway.errors import InputError
from cutaway.inspect import attention_flow, attention_rollout, value_norms
from cutaway.inspect.norms import weighted_values

CASES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99), st.floats(0, 1))


def patterns(layers: int, heads: int, length: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(layers, heads, length, length, generator=draw, dtype=torch.float64) * 2
    return scores.masked_fill(torch.rand(scores.shape, generator=draw) < 0.2, -20.0).softmax(-1)


@settings(max_examples=25)
@given(CASES)
def test_rollout_is_the_sum_over_all_paths_and_flow_is_no_less(case: tuple[int, int, int, int, float]) -> None:
    layers, heads, length, seed, residual = case
    p = patterns(layers, heads, length, seed)
    shares = attention_rollout(p, residual).shares
    assert torch.allclose(shares.sum(-1), torch.ones(layers, length, dtype=torch.float64), atol=1e-9)
    mixed = residual * torch.eye(length, dtype=torch.float64) + (1 - residual) * p.mean(1)
    paths = torch.zeros(length, length, dtype=torch.float64)
    for path in product(range(length), repeat=layers + 1):  # from above the last layer down
        weight = 1.0
        for step in range(layers):
            weight *= float(mixed[layers - 1 - step, path[step], path[step + 1]])
        paths[path[0], path[-1]] += weight
    assert torch.allclose(shares[-1], paths, atol=1e-9)
    flow = attention_flow(p, residual).capacity
    assert bool((flow >= shares[-1] - 1e-9).all()) and bool((flow <= 1 + 1e-9).all())
    if layers == 1:
        assert torch.allclose(flow, mixed, atol=1e-9)


def test_flow_of_a_bottleneck() -> None:
    """Two paths of 0.5 each that share an edge of 0.5: rollout counts their product, flow the width."""
    p = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]], [[[0.5, 0.5], [0.5, 0.5]]]], dtype=torch.float64)
    assert torch.allclose(attention_flow(p, 0.0).capacity, torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double())
    with pytest.raises(InputError, match="one text"):
        attention_rollout(p[0])
    with pytest.raises(InputError, match="residual"):
        attention_rollout(p, 1.5)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5", "bart"])
@torch.no_grad()
def test_weighted_values_sum_to_the_attention_output(family: str) -> None:
    model, given_inputs = tiny(family), batch(family)
    two = model.base_model.architecture.decoder is not None
    for name in ("attn", "cross") if two else ("attn",):
        at = f"{'decoder.' if two else ''}blocks.1.{name}"
        with model.record(f"{at}.pattern", f"{at}.v", f"{at}.out") as r:
            model(**given_inputs)
        layer = getattr((model.base_model.decoder if two else model.base_model).blocks[1], name)
        parts = weighted_values(r[f"{at}.pattern"], r[f"{at}.v"], layer.o.weight)
        whole = parts.sum((1, 3)) + (0 if layer.o.bias is None else layer.o.bias)
        real = torch.ones(2, 5, dtype=torch.bool) if two else given_inputs["attention_mask"].bool()
        assert torch.allclose(whole[real], r[f"{at}.out"][real], atol=1e-9)
        norms = value_norms(model, given_inputs, 1, cross=name == "cross")
        assert norms.address == f"{at}.pattern" and torch.allclose(norms.heads, parts.norm(dim=-1), atol=1e-12)
        assert norms.to_dict()["together"]
