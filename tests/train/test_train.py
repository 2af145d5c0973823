"""Collator, schedules and seed: what a plain training loop needs."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

import cutaway
from cutaway.errors import InputError


@given(st.integers(0, 20), st.integers(1, 40))
def test_schedules_equal_transformers(warm: int, total: int) -> None:
    ours = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    a = cutaway.get_linear_schedule_with_warmup(ours, warm, total)
    b = transformers.get_linear_schedule_with_warmup(theirs, warm, total)
    c = cutaway.get_constant_schedule_with_warmup(ours, warm)
    d = transformers.get_constant_schedule_with_warmup(theirs, warm)
    for step in range(45):
        assert a.lr_lambdas[0](step) == b.lr_lambdas[0](step)
        assert c.lr_lambdas[0](step) == d.lr_lambdas[0](step)


def test_set_seed_repeats_every_source() -> None:
    def draw() -> tuple[float, float, float]:
        cutaway.set_seed(11)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw() == draw()


class _Padder:
    """Only what the collator asks of a tokenizer."""

    def pad(self, features: list[dict[str, list[int]]], **_: object) -> dict[str, torch.Tensor]:
        longest = max(len(f["input_ids"]) for f in features)
        ids = torch.tensor([f["input_ids"] + [0] * (longest - len(f["input_ids"])) for f in features])
        return {"input_ids": ids, "label": torch.tensor([f["label"] for f in features])}


def test_collator_names_the_labels() -> None:
    batch = cutaway.DataCollatorWithPadding(_Padder())(
        [{"input_ids": [5], "label": 1}, {"input_ids": [6, 7], "label": 0}]
    )
    assert batch["input_ids"].tolist() == [[5, 0], [6, 7]]
    assert batch["labels"].tolist() == [1, 0]
    assert "label" not in batch


def test_collator_without_examples_says_so() -> None:
    with pytest.raises(InputError, match="no examples"):
        cutaway.DataCollatorWithPadding(_Padder())([])
