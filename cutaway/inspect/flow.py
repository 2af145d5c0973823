"""Attention through all layers: rollout and flow (Abnar and Zuidema, 2020, arXiv 2005.00928)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.show.sheet import Scale


@dataclass(frozen=True)
class Rollout(Result):
    """`shares` [layers, L, L]: after layer l, how much of position i came from input position j; rows sum to 1."""

    SCALES: ClassVar[dict[str, Scale]] = {"shares": "share"}

    shares: Tensor


@dataclass(frozen=True)
class Flow(Result):
    """`capacity` [L, L]: the largest flow from the last layer's position i to input position j, at most 1."""

    SCALES: ClassVar[dict[str, Scale]] = {"capacity": "share"}

    capacity: Tensor


def _mixed(patterns: Tensor, residual: float) -> Tensor:
    """[layers, heads, L, L] -> [layers, L, L]: heads averaged, the stream's own share added, rows normed."""
    if patterns.dim() != 4 or patterns.shape[2] != patterns.shape[3]:
        raise InputError(f"patterns must be [layers, heads, L, L] of one text; they are {list(patterns.shape)}.")
    if not 0.0 <= residual <= 1.0:
        raise InputError(f"residual={residual} must lie in 0..1; it is the stream's own share.")
    own = torch.eye(patterns.shape[-1], dtype=patterns.dtype, device=patterns.device)
    return residual * own + (1.0 - residual) * patterns.mean(1)


@measure
def attention_rollout(patterns: Tensor, residual: float = 0.5) -> Rollout:
    """A_l R_{l-1}, with A_l = residual I + (1 - residual) mean over heads of the pattern, and R_0 = I.

    It equals the sum over all paths through the layers of the product of their weights. It is about attention only: it
    leaves out values, feed-forward layers and norms.

    Args:
        patterns: [layers, heads, L, L], self-attention of one text; rows sum to 1.
        residual: the share of the residual stream.
    """
    mixed = _mixed(patterns, residual)
    rollout = [mixed[0]]
    for layer in mixed[1:]:
        rollout.append(layer @ rollout[-1])
    return Rollout(torch.stack(rollout))


@measure
def attention_flow(patterns: Tensor, residual: float = 0.5) -> Flow:
    """Maximum flow through the layers, edges as wide as the weights of `attention_rollout`.

    A flow may use every path at once up to the width of its edges; a rollout's share is itself a flow from i to j, so
    flow >= rollout. Solved exactly up to 1e-9 by Edmonds and Karp's shortest augmenting paths (1972); the cost grows
    fast with L, so it is for texts of at most some dozen tokens.
    """
    mixed = _mixed(patterns, residual).double().cpu()
    layers, length = mixed.shape[:2]
    flow = torch.zeros(length, length, dtype=torch.float64)
    for start in range(length):
        for end in range(length):
            flow[start, end] = _maximum(mixed, layers, length, start, end)
    return Flow(flow.to(patterns.dtype))


def _maximum(mixed: Tensor, layers: int, length: int, start: int, end: int) -> float:
    """The maximum flow from position `start` above the last layer to position `end` below the first."""
    capacity: list[dict[int, float]] = [{} for _ in range((layers + 1) * length)]
    for layer in range(layers):
        for i, row in enumerate(mixed[layer].tolist()):
            for j, width in enumerate(row):
                if width > 0:
                    capacity[(layer + 1) * length + i][layer * length + j] = width
                    capacity[layer * length + j].setdefault((layer + 1) * length + i, 0.0)
    source, sink, total = layers * length + start, end, 0.0
    while True:
        before: dict[int, int] = {source: source}
        frontier = [source]
        while frontier and sink not in before:
            fresh = []
            for node in frontier:
                for other, width in capacity[node].items():
                    if width > 1e-12 and other not in before:
                        before[other] = node
                        fresh.append(other)
            frontier = fresh
        if sink not in before:
            return total
        path, node = [], sink
        while node != source:
            path.append((before[node], node))
            node = before[node]
        width = min(capacity[a][b] for a, b in path)
        for a, b in path:
            capacity[a][b] -= width
            capacity[b][a] += width
        total += width
