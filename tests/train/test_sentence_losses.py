"""Losses over vectors are sentence-transformers' on the same batch."""

from __future__ import annotations

import warnings

import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.train.sentence_losses import SENTENCE_LOSSES, sentence_loss

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    reference = pytest.importorskip("sentence_transformers.losses")

GRADED, TWO = torch.tensor([1.0, 0.0, 0.7, 0.5, 0.0, 0.2]), torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])


class Vectors(torch.nn.Module):
    """What the reference takes for a model: the vectors as they are."""

    def forward(self, features):
        return {"sentence_embedding": features["vectors"]}

    def __getitem__(self, i):
        return self


@pytest.mark.parametrize(
    ("name", "columns", "labels"),
    [
        ("MultipleNegativesRankingLoss", 2, None),
        ("MultipleNegativesRankingLoss", 3, None),
        ("MultipleNegativesRankingLoss", 4, None),
        ("CosineSimilarityLoss", 2, GRADED),
        ("CoSENTLoss", 2, GRADED),
        ("ContrastiveLoss", 2, TWO),
        ("TripletLoss", 3, None),
    ],
)
def test_the_loss_and_its_gradient_are_the_reference_s(name, columns, labels):
    torch.manual_seed(0)
    ours = [torch.randn(6, 8, requires_grad=True) for _ in range(columns)]
    theirs = [one.detach().clone().requires_grad_() for one in ours]
    found = sentence_loss(name)(ours, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right = getattr(reference, name)(Vectors())([{"vectors": one} for one in theirs], labels)
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)
    found.backward()
    right.backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_columns_and_labels_that_do_not_fit_are_said():
    a = torch.randn(2, 4)
    with pytest.raises(InputError, match="compares 2 or more columns of texts; the rows have 1"):
        sentence_loss("MultipleNegativesRankingLoss")([a])
    with pytest.raises(InputError, match="compares 3 columns"):
        sentence_loss("TripletLoss")([a, a])
    with pytest.raises(InputError, match="needs a label for each pair"):
        sentence_loss("CoSENTLoss")([a, a])
    with pytest.raises(ConfigError, match="Did you mean 'TripletLoss'"):
        sentence_loss("TripleLoss")
    assert set(SENTENCE_LOSSES) == {name for name in SENTENCE_LOSSES if hasattr(reference, name)}
