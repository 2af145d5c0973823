"""Iterators over the steps of a pipeline of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cutaway.errors import InputError
from cutaway.pipelines.pt_utils import (
    PipelineChunkIterator,
    PipelineDataset,
    PipelineIterator,
    PipelinePackIterator,
)


def times(x: Any, by: int = 1) -> Any:
    return x * by


def test_one_step_for_each_row() -> None:
    rows = PipelineDataset([3, 4], times, {"by": 5})
    assert len(rows) == 2 and [rows[i] for i in range(2)] == [15, 20]
    found = PipelineIterator([3, 4], times, {"by": 5})
    assert len(found) == 2 and list(found) == list(found) == [15, 20]
    with pytest.raises(TypeError):
        len(PipelineIterator(iter([3]), times, {}))
    assert list(PipelineChunkIterator(["ab", "c"], lambda text, by: (letter * by for letter in text), {"by": 2})) == [
        "aa", "bb", "cc",
    ]  # fmt: skip


def test_batches_come_row_by_row() -> None:
    draw = torch.Generator().manual_seed(1)
    batch = {
        "ids": [7, 8], "states": (torch.randn(2, 3, generator=draw), torch.randn(2, 3, generator=draw)),
        "logits": torch.randn(2, 4, generator=draw), "mask": np.ones((2, 4)), "cache": None,
    }  # fmt: skip
    found = list(PipelineIterator([batch], dict, {}, loader_batch_size=2))
    assert [row["ids"] for row in found] == [7, 8] and all(row["cache"] is None for row in found)
    assert all(row["mask"].shape == (1, 4) for row in found)
    assert torch.equal(torch.cat([row["logits"] for row in found]), batch["logits"])
    for layer in (0, 1):
        assert torch.equal(torch.cat([row["states"][layer] for row in found]), batch["states"][layer])
    rows = list(PipelineIterator([batch["logits"]], times, {"by": 2}, loader_batch_size=2))
    assert torch.equal(torch.cat(rows), 2 * batch["logits"])
    for wrong, message in (({"a": [1], "b": [1, 2]}, "as many rows each"), (3, "not int")):
        with pytest.raises(InputError, match=message):
            list(PipelineIterator([wrong], lambda x: x, {}, loader_batch_size=2))


@pytest.mark.parametrize("size", [None, 2])
def test_rows_are_gathered_up_to_the_last_of_each_input(size: int | None) -> None:
    rows = [{"n": n, "is_last": n in (1, 2)} for n in range(4)]
    loader: list[Any] = (
        rows if size is None else [{k: [r[k] for r in rows[i : i + 2]] for k in rows[0]} for i in (0, 2)]
    )
    found = list(PipelinePackIterator(loader, dict, {}, loader_batch_size=size))
    assert found == [[{"n": 0}, {"n": 1}], [{"n": 2}], [{"n": 3}]]
    with pytest.raises(InputError, match="is_last"):
        list(PipelinePackIterator([{"n": 1}], dict, {}))
