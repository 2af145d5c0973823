"""The measures' defining properties in every family, over random lengths and paddings, in float64 and float32."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.pairs import FAMILIES, gap, inputs, load
from parity.tiny_models import ENCODER_DECODERS, make
from torch import Tensor

from cutaway.inspect import attention_rollout, last_state
from cutaway.inspect.norms import weighted_values
from cutaway.inspect.tower import tower_of

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}


@cache
def model_of(family: str, dtype: torch.dtype) -> Any:
    return load(make(family), "Model").to(dtype)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=4)
@given(data=st.data())
@torch.no_grad()
def test_what_is_shown_adds_up(family: str, data: Any) -> None:
    """Rows of attention, weights times values, heads, and the parts of the last state."""
    dtype = data.draw(st.sampled_from(list(CLOSE)))
    lengths = tuple(data.draw(st.lists(st.integers(3, 12), min_size=1, max_size=3)))
    side = data.draw(st.sampled_from(["right", "left"]))
    model, text, close = model_of(family, dtype), inputs(family, lengths, side), CLOSE[dtype]
    tower = "decoder." if family in ENCODER_DECODERS else ""
    mask = text.get("decoder_attention_mask" if tower else "attention_mask")
    real = torch.ones_like(text["decoder_input_ids" if tower else "input_ids"]) if mask is None else mask
    here = real.bool()
    own = tower_of(model, tower.rstrip(".") or None)
    with model.record("*") as r:
        model(**text)
    for layer in range(2):
        at = f"{tower}blocks.{layer}.attn"
        pattern, values = r[f"{at}.pattern"], r[f"{at}.v"]
        rows = pattern.sum(-1).transpose(1, 2)[here]  # [tokens, heads]
        assert gap(rows, torch.ones_like(rows)) < close
        shared = values.repeat_interleave(pattern.shape[1] // values.shape[2], 2)  # [batch, length, heads, head_size]
        mixed = torch.einsum("bhqk,bkhd->bqhd", pattern, shared)
        assert gap(mixed[here], r[f"{at}.z"][here]) < close
        out = sum((r[a] for a in model.addresses() if a.startswith(f"{at}.head.")), torch.zeros((), dtype=dtype))
        bias: Tensor | None = own.block(layer).attn.output_layer().bias
        assert gap((out if bias is None else out + bias)[here], r[f"{at}.out"][here]) < close
    found = last_state(model, text)
    assert gap(found.parts.sum(0)[here], found.state[here]) < close


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_rollout_and_norms(family: str) -> None:
    """Rows of a rollout sum to 1; what the heads bring from all keys is, with the bias, what attention gives."""
    model, text = model_of(family, torch.float64), inputs(family, (7,))
    tower = "decoder" if family in ENCODER_DECODERS else None
    own = tower_of(model, tower)
    with model.record(own.at("blocks.*.attn.pattern"), own.at("blocks.1.attn.*")) as r:
        model(**text)
    patterns = torch.stack([r[own.at(f"blocks.{i}.attn.pattern")][0] for i in range(own.spec.n_layers)])
    rows = attention_rollout(patterns).shares.sum(-1)
    assert gap(rows, torch.ones_like(rows)) < 1e-9
    at, out = own.at("blocks.1.attn"), own.block(1).attn.output_layer()
    brought = weighted_values(r[f"{at}.pattern"], r[f"{at}.v"], out.weight).sum((1, 3))  # [batch, length, hidden]
    assert gap(brought if out.bias is None else brought + out.bias, r[f"{at}.out"]) < 1e-9
