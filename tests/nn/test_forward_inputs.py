"""Which arguments of a call reach a forward, which are left out, and which are refused."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import cutaway
from cutaway.errors import ArgumentError
from cutaway.nn.forward_inputs import accepted

SIZES = {"vocab_size": 30, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
IDS = torch.tensor([[1, 2, 3]])


def _decorated(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("more", None)
        return function(*args, **kwargs)

    return call


class Narrow(cutaway.BertModel):
    def forward(self, input_ids: Tensor) -> Any:
        return super().forward(input_ids)


class Decorated(cutaway.BertModel):
    @_decorated
    def forward(self, input_ids: Tensor) -> Any:
        return super().forward(input_ids)


class Noting(cutaway.BertModel):
    def forward(self, input_ids: Tensor, **rest: Any) -> Any:
        self.noted = sorted(rest)
        return super().forward(input_ids)


def test_a_decorator_takes_what_it_hands_on_and_more() -> None:
    assert accepted(Narrow.forward) == {"self", "input_ids"}
    assert accepted(Decorated.forward) is None
    assert accepted(Decorated.forward, innermost=True) == {"self", "input_ids"}
    assert accepted(Noting.forward) is accepted(Noting.forward, innermost=True) is None


def test_what_says_nothing_new_is_left_out_unless_it_is_taken() -> None:
    for kind in (Narrow, Decorated):
        model = kind(cutaway.BertConfig(**SIZES)).eval()
        assert torch.equal(model(IDS, use_cache=False, num_items_in_batch=3)[0], model(IDS)[0])
    model = Noting(cutaway.BertConfig(**SIZES)).eval()
    model(IDS, use_cache=False, num_items_in_batch=3)
    assert model.noted == ["num_items_in_batch", "use_cache"]


def test_what_a_forward_does_not_take_is_refused_by_name_and_left_to_a_decorator() -> None:
    with pytest.raises(ArgumentError, match="takes no argument more"):
        Narrow(cutaway.BertConfig(**SIZES))(IDS, more=1)
    Decorated(cutaway.BertConfig(**SIZES))(IDS, more=1)
