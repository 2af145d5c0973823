"""Masks that say for each query which keys it sees, [batch, heads, queries, keys]: as upstream, value for value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.pairs import TOLERANCE, gap, pair, texts
from torch import Tensor

from cutaway.errors import InputError

LENGTH = 7
FAMILIES = (
    "bert", "roberta", "modernbert", "mpnet", "gpt2", "llama", "mistral", "qwen3", "gemma2", "gpt_neox", "phi3",
)  # fmt: skip


def visible(heads: int = 1, seed: int = 3, queries: int = LENGTH, keys: int = LENGTH) -> Tensor:
    """A random mask, bool [2, heads, queries, keys], in which each query sees itself."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, heads, queries, keys, generator=draw) < 0.5
    return mask | torch.eye(keys, dtype=torch.bool)[keys - queries :]


def added(mask: Tensor) -> Tensor:
    """The same, as what is added to the scores."""
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)


def both(family: str) -> tuple[Any, Any, Tensor]:
    theirs, ours = pair(family, pad_token_id=0)
    return theirs.eval(), ours.eval(), torch.stack(texts((LENGTH, LENGTH)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("heads", [1, 4])
def test_each_query_sees_what_the_mask_says(family: str, heads: int) -> None:
    """Causality and windows are not added: the mask alone says it."""
    theirs, ours, ids = both(family)
    mask = visible(heads)
    with torch.no_grad():
        wanted = theirs(ids, attention_mask=added(mask))[0]
        plain = ours(ids)[0]
        for given in (mask, added(mask)):
            found = ours(ids, attention_mask=given, output_attentions=True)
            assert gap(found[0], wanted) < TOLERANCE
            assert not found.attentions[0][~mask.expand_as(found.attentions[0])].any()
    assert gap(plain, wanted) > 1e-3


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_new_tokens_see_of_a_cache_what_the_mask_says(family: str) -> None:
    theirs, ours, ids = both(family)
    more, mask = torch.stack(texts((3, 3), seed=9)), visible(queries=3, keys=LENGTH + 3)
    with torch.no_grad():
        past = theirs(ids, use_cache=True).past_key_values
        wanted = theirs(more, past_key_values=past, attention_mask=added(mask))[0]
        for given in (mask, added(mask)):
            cache = ours(ids, use_cache=True).past_key_values
            assert gap(ours(more, past_key_values=cache, attention_mask=given)[0], wanted) < TOLERANCE


def test_gradients_flow_as_upstream() -> None:
    theirs, ours, ids = both("llama")
    mask = visible()
    theirs(ids, attention_mask=added(mask))[0].square().sum().backward()
    ours(ids, attention_mask=mask)[0].square().sum().backward()
    wanted = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        assert gap(weight.grad, wanted[name].grad) < 1e-4, name


def test_a_mask_that_does_not_fit_is_an_error() -> None:
    _, ours, ids = both("gpt2")
    mask = visible()
    for given, message in (
        (mask[..., :-1], r"it must be \[batch, length\] or, where it says what each query sees, \[2, 1 or 4, 7, 7\]"),
        (mask.expand(2, 3, -1, -1), r"has shape \[2, 3, 7, 7\]"),
        (mask.long(), "is of torch.int64; give bool"),
    ):
        with pytest.raises(InputError, match=message):
            ours(ids, attention_mask=given)
    held = ours(ids, attention_mask=torch.tensor([[1] * LENGTH, [0, *[1] * (LENGTH - 1)]])).past_key_values
    with pytest.raises(InputError, match="the texts in past_key_values have padding"):
        ours(ids[:, :1], attention_mask=visible(queries=1, keys=LENGTH + 1), past_key_values=held)
