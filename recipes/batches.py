"""Batches of texts of like length."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor

POOL = 40  # batches that are sorted by length together


def shuffled(lengths: Sequence[int], size: int, rng: random.Random) -> list[list[int]]:
    """All places 0..n-1 in random batches; the texts of one batch have about the same length."""
    order = list(range(len(lengths)))
    rng.shuffle(order)
    batches = []
    for start in range(0, len(order), size * POOL):
        pool = sorted(order[start : start + size * POOL], key=lambda place: lengths[place] + rng.random())
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    rng.shuffle(batches)
    return batches


def padded(texts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both int64 [batch, longest]."""
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), pad)
    mask = torch.zeros(len(texts), longest, dtype=torch.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return ids, mask


def rate(step: int, steps: int, warm: float = 0.1) -> float:
    """The share of the learning rate at `step`: a straight rise, then a cosine to 0."""
    if step <= warm * steps:
        return step / (warm * steps)
    return 0.5 * (1 + math.cos(math.pi * min(1, step / steps)))
