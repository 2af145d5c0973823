"""Scores that depend on how far a query and a key are apart, and on both of them (He et al., 2021, section 3.1).

Each distance, or bucket of distances, has a vector. A layer makes keys and queries of these vectors; the score of a
pair of words gains query * key(distance) and key * query(distance).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from cutaway.config.architecture import Attention as AttentionSpec
from cutaway.config.architecture import Distances, DistanceWaves
from cutaway.errors import InputError
from cutaway.nn.call_context import current, evaluating, of_no_row
from cutaway.nn.dropout import dropout
from cutaway.nn.linear import Linear
from cutaway.nn.named_modules import NamedModule
from cutaway.nn.norm_mlp import Embedding


class DistanceBias(Protocol):
    """What distances add to the scores of one layer."""

    def __call__(self, asking: Tensor, seen: Tensor, places: Tensor | None, types: Tensor | None = None) -> Tensor:
        """[n, heads, length, length].

        Args:
            asking, seen: queries and keys, [n, heads, length, head_size]. places: [n, length], of words that do not
                stand side by side. types: [n, length], the segment of each word, or None where they do not matter.
        """


# The numbers of one tensor of scores that are computed at once: with more, they leave the processor's cache.
AT_ONCE = 1 << 20


def chunk_size(heads: int, length: int) -> int:
    """How many texts of this length are computed at once."""
    return max(1, AT_ONCE // (heads * length * length))


@dataclass(frozen=True)
class DistanceRows:
    """The rows of a table of distances that the texts of a batch need.

    Attributes:
        vectors: [rows, hidden]. index: [2 * reach - 1], the row of each distance from 1 - reach to reach - 1.
    """

    vectors: Tensor
    index: Tensor

    @property
    def reach(self) -> int:
        """More than any distance."""
        return (len(self.index) + 1) // 2


class DistanceTable(Embedding):
    """One vector for each distance from a key to a query, or for each bucket of distances, shared by all layers."""

    def __init__(self, spec: Distances, hidden_size: int) -> None:
        super().__init__(2 * spec.span, hidden_size)
        self.spec = spec

    def buckets(self, distance: Tensor) -> Tensor:
        """The row of each distance (query position - key position).

        Distances up to span / 2 have rows of their own; beyond, rows stand for stretches that grow with the distance,
        and the last of them for all that is farther.
        """
        span, row = self.spec.span, distance
        if self.spec.longest:
            exact = span // 2
            ratio = torch.log(distance.abs().clamp(min=1).float() / exact)
            # as float32, like the ratio: a distance on the edge of a bucket falls on the side that was trained
            steps = ratio / torch.log(torch.tensor((self.spec.longest - 1) / exact)) * (exact - 1)
            far = (torch.ceil(steps) + exact) * distance.sign()
            row = torch.where(distance.abs() <= exact, distance, far.long())
        return (row + span).clamp(0, 2 * span - 1)

    def reaching(self, reach: int, norm: nn.Module | None) -> DistanceRows:
        """The vectors for texts of up to `reach` places."""
        index = self.buckets(torch.arange(1 - reach, reach, device=self.weight.device))
        first, last = int(index[0]), int(index[-1])
        vectors = self.weight[first : last + 1]
        if norm is not None:
            with of_no_row():
                vectors = norm(vectors)
        return DistanceRows(vectors, index - first)


class WaveTable(nn.Module):
    """Sines and cosines for each distance from a key to a query (Vaswani et al., 2017, section 3.5); no weights."""

    def __init__(self, spec: DistanceWaves, hidden_size: int) -> None:
        super().__init__()
        self.spec, self.hidden_size = spec, hidden_size

    def between(self, first: int, last: int, like: Tensor) -> DistanceRows:
        """The vectors of all distances from `first` to `last`, which is -first; of the dtype and device of `like`."""
        index = torch.arange(first, last + 1, device=like.device)
        if self.spec.farthest:
            index = index.clamp(-self.spec.farthest, self.spec.farthest)
        low = int(index[0])
        distances = torch.arange(low, int(index[-1]) + 1, device=like.device).float()
        steps = torch.arange(0, self.hidden_size, 2, device=like.device).float()
        angles = distances[:, None] / 10_000 ** (steps / self.hidden_size)  # [distances, hidden / 2]
        vectors = torch.cat((angles.sin(), angles.cos()), -1).to(like.dtype)  # [distances, hidden]
        vectors = dropout(vectors, self.spec.dropout, self.training and not evaluating())
        return DistanceRows(vectors, index - low)


class DistanceScores(NamedModule):
    """What distances add to the scores of one layer."""

    def __init__(self, spec: AttentionSpec, hidden_size: int) -> None:
        super().__init__()
        assert isinstance(spec.distances, Distances)
        self.spec, self.attention = spec.distances, spec
        size = spec.n_heads * spec.head_size
        if self.spec.to_keys and not self.spec.shared:
            self.k = Linear(hidden_size, size)
        if self.spec.to_queries and not self.spec.shared:
            self.q = Linear(hidden_size, size)

    def forward(self, q: Linear, k: Linear, rows: DistanceRows) -> DistanceBias:
        """q, k: the layers that make queries and keys of words."""
        vectors = dropout(rows.vectors, self.spec.dropout, self.training and not evaluating())
        key_layer, query_layer = (k, q) if self.spec.shared else (self._own("k"), self._own("q"))
        keys = self._made(key_layer, vectors) if self.spec.to_keys else None
        queries = self._made(query_layer, vectors) if self.spec.to_queries else None

        def bias(asking: Tensor, seen: Tensor, places: Tensor | None, types: Tensor | None = None) -> Tensor:
            added = asking.new_zeros(()) if keys is None and queries is None else None
            if keys is not None:
                added = compared(asking, keys, rows, places, flipped=True)
            if queries is not None:
                by_key = compared(seen, queries, rows, places, flipped=False).transpose(-1, -2)
                added = by_key if added is None else added + by_key
            assert added is not None
            return added.expand(*asking.shape[:3], seen.shape[2])

        return bias

    def _own(self, name: str) -> Linear | None:
        return self._modules.get(name)  # type: ignore[return-value]

    def _made(self, layer: Linear | None, vectors: Tensor) -> Tensor:
        """Keys or queries of the distances, scaled as scores are: [heads, rows, head_size]."""
        assert layer is not None
        call = current().adapters
        if call is not None and len(set(call.names)) > 1 and getattr(layer, "site", None) is not None:
            raise InputError(
                "different adapters in one batch: they change what distances mean to this model. Run their texts apart."
            )
        with of_no_row():
            made = layer(vectors) * self.attention.scale
        return made.unflatten(-1, (self.attention.n_heads, -1)).transpose(0, 1)  # type: ignore[no-any-return]


def compared(words: Tensor, distances: Tensor, rows: DistanceRows, places: Tensor | None, *, flipped: bool) -> Tensor:
    """words [n, heads, length, head_size] times the vector of each one's distance to each other: [n, heads, l, l].

    Args:
        distances: [heads, rows, head_size]. places: [n, length], or None where words stand side by side.
        flipped: whether the words ask (their distance to others is their place minus the others'), or are asked.
    """
    length, center = words.shape[2], rows.reach - 1
    if places is not None:
        apart = places[:, :, None] - places[:, None]  # [n, words, others]
        index = rows.index[(apart if flipped else -apart) + center]
        products = words @ distances.transpose(-1, -2)  # [n, heads, length, rows]
        return products.gather(-1, index[:, None].expand(-1, words.shape[1], -1, -1))
    near = rows.index[center + 1 - length : center + length]  # by distance, from 1 - length on
    by_step = distances[:, near.flip(0) if flipped else near]  # [heads, 2 * length - 1, head_size]
    # column c of row w is the other word w + c - (length - 1): one row's wanted columns begin one to the left of those
    # of the row above it, so they are rows of the same numbers, cut one column narrower
    products = words @ by_step.transpose(-1, -2)  # [n, heads, length, 2 * length - 1]
    if length == 1:
        return products
    cut = products.flatten(-2)[..., length - 1 : -1]  # [n, heads, length * (2 * length - 2)]
    aligned: Tensor = cut.unflatten(-1, (length, -1))[..., :length]  # [n, heads, length, length]
    return aligned
