"""The losses by hand on small numbers, and labels that cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cutaway import BertConfig
from cutaway.errors import InputError
from cutaway.nn import losses


def by_hand(logits: Tensor, labels: list[int]) -> Tensor:
    kept = [(row, label) for row, label in zip(logits, labels, strict=True) if label != losses.IGNORED]
    return torch.stack([torch.log(row.exp().sum()) - row[label] for row, label in kept]).mean()


def test_cross_entropy_and_next_token() -> None:
    logits = torch.randn(4, 5)
    assert torch.allclose(losses.cross_entropy(logits, torch.tensor([1, -100, 0, 4])), by_hand(logits, [1, -100, 0, 4]))
    assert torch.allclose(
        losses.next_token(logits[None], torch.tensor([[9, 1, -100, 4]])), by_hand(logits[:3], [1, -100, 4])
    )


def test_the_problem_decides() -> None:
    logits = torch.randn(2, 3)
    assert torch.allclose(losses.classification(logits, torch.tensor([2, 0]), BertConfig()), by_hand(logits, [2, 0]))
    several = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    p = logits.sigmoid()
    wanted = -(several * p.log() + (1 - several) * (1 - p).log()).mean()
    assert torch.allclose(losses.classification(logits, several, BertConfig()), wanted)
    one = losses.classification(logits[:, :1], torch.tensor([1, 2]), BertConfig(num_labels=1))
    assert torch.allclose(one, (logits[:, 0] - torch.tensor([1.0, 2.0])).square().mean())
    whole = several.long()  # whole numbers, but the problem is set
    assert torch.allclose(
        losses.classification(logits, whole, BertConfig(problem_type="multi_label_classification")), wanted
    )


def test_spans_outside_the_text_carry_no_loss() -> None:
    starts, ends = torch.randn(3, 4), torch.randn(3, 4)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]]).bool()
    found = losses.span(starts, ends, torch.tensor([0, 3, 2]), torch.tensor([9, 1, 3]), mask)
    s, e = starts.masked_fill(~mask, -torch.inf), ends.masked_fill(~mask, -torch.inf)
    assert torch.allclose(found, (by_hand(s[[0, 2]], [0, 2]) + by_hand(e[[1, 2]], [1, 3])) / 2)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([0, 3]), r"holds 3.*3 classes"),
        (torch.tensor([-1, 0]), "holds -1"),
        (torch.tensor([0, 1, 2]), r"\[3\].*\[2\]"),
        (torch.zeros(2, 2), r"\[2, 2\].*\[2, 3\]"),
    ],
)
def test_labels_that_cannot_be(labels: Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        losses.classification(torch.randn(2, 3), labels, BertConfig())
