"""What vectors of texts are trained by, under the names of sentence-transformers.

A loss is called with the vectors of a batch, one tensor [rows, width] for each column of texts, and the rows' labels
[rows] where they have any; it gives the mean over the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.errors import ConfigError, InputError, nearest


class SentenceLoss(Protocol):
    """A loss over the vectors of a batch's columns of texts."""

    def __call__(self, vectors: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Vectors [rows, width] of each column, labels [rows] -> the mean loss."""


def pairwise_cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of each row of `a` [rows, width] with the same row of `b`: [rows]."""
    return (F.normalize(a, dim=-1) * F.normalize(b, dim=-1)).sum(-1)


def _columns(vectors: Sequence[Tensor], least: int, who: str, most: int = 0) -> None:
    if len(vectors) < least or (most and len(vectors) > most):
        asked = f"{least} or more" if not most else str(least)
        raise InputError(f"{who} compares {asked} columns of texts; the rows have {len(vectors)}.")


def _labels(labels: Tensor | None, who: str) -> Tensor:
    if labels is None:
        raise InputError(f"{who} needs a label for each pair: a number in the column 'label' or 'score'.")
    return labels.float()


@dataclass(frozen=True)
class MultipleNegativesRankingLoss:
    """Each first text shall find its second among all second texts (and negatives) of the batch.

    The cross-entropy of the cosines times `scale`, the row's own second text being the right one (Henderson et al.,
    2017, arXiv:1705.00652, section 4.4). Columns from the third on are negatives that were chosen (hard negatives).
    """

    scale: float = 20.0

    def __call__(self, vectors: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        _columns(vectors, 2, "MultipleNegativesRankingLoss")
        first = F.normalize(vectors[0], dim=-1)
        others = F.normalize(torch.cat(list(vectors[1:])), dim=-1)  # [rows * (columns - 1), width]
        scores = first @ others.T * self.scale  # [rows, rows * (columns - 1)]
        return F.cross_entropy(scores, torch.arange(len(first), device=scores.device))


@dataclass(frozen=True)
class CosineSimilarityLoss:
    """The square of the distance between the cosine of two texts and their label."""

    def __call__(self, vectors: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        _columns(vectors, 2, "CosineSimilarityLoss", 2)
        return F.mse_loss(pairwise_cosine(vectors[0], vectors[1]), _labels(labels, "CosineSimilarityLoss"))


@dataclass(frozen=True)
class CoSENTLoss:
    """Pairs with a higher label shall have a higher cosine than pairs with a lower one, over all pairs of pairs.

    log(1 + sum of exp(scale * (cosine of the lower - cosine of the higher))); Su, 2022, kexue.fm/archives/8847.
    """

    scale: float = 20.0

    def __call__(self, vectors: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        _columns(vectors, 2, "CoSENTLoss", 2)
        right = _labels(labels, "CoSENTLoss")
        cosines = pairwise_cosine(vectors[0], vectors[1]) * self.scale
        apart = cosines[:, None] - cosines[None, :]  # [rows, rows]
        apart = apart.masked_fill(right[:, None] >= right[None, :], -torch.inf)
        return torch.logsumexp(torch.cat((apart.new_zeros(1), apart.flatten())), 0)


@dataclass(frozen=True)
class ContrastiveLoss:
    """Pairs labelled 1 shall be near, those labelled 0 at least `margin` apart, by 1 - cosine.

    Hadsell, Chopra and LeCun, 2006, equation 4.
    """

    margin: float = 0.5

    def __call__(self, vectors: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        _columns(vectors, 2, "ContrastiveLoss", 2)
        right = _labels(labels, "ContrastiveLoss")
        apart = 1 - pairwise_cosine(vectors[0], vectors[1])
        return (0.5 * (right * apart**2 + (1 - right) * F.relu(self.margin - apart) ** 2)).mean()


@dataclass(frozen=True)
class TripletLoss:
    """The first text shall be nearer to the second than to the third, by `margin`, in Euclidean distance."""

    triplet_margin: float = 5.0

    def __call__(self, vectors: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        _columns(vectors, 3, "TripletLoss", 3)
        first, second, third = vectors
        near, far = F.pairwise_distance(first, second), F.pairwise_distance(first, third)
        return F.relu(near - far + self.triplet_margin).mean()


SENTENCE_LOSSES: dict[str, type[SentenceLoss]] = {
    "MultipleNegativesRankingLoss": MultipleNegativesRankingLoss,
    "CosineSimilarityLoss": CosineSimilarityLoss,
    "CoSENTLoss": CoSENTLoss,
    "ContrastiveLoss": ContrastiveLoss,
    "TripletLoss": TripletLoss,
}


def sentence_loss(name: str) -> SentenceLoss:
    """A loss by its name, with its own settings. Raises ConfigError for a name that is none."""
    if name not in SENTENCE_LOSSES:
        raise ConfigError(f"there is no loss {name!r}.{nearest(name, SENTENCE_LOSSES)}")
    return SENTENCE_LOSSES[name]()
