"""Numbers that sum up one attention head. All take and return numpy arrays, averages over the text's own tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MEANING = {
    "entropy": "mean attention entropy, in bits: 0 = each token looks at one token only",
    "distance": "mean attention distance, in tokens: 0 = each token looks at itself",
    "focus": "mean share of attention that a word gives to the one word it looks at most, neighbours left out",
    "effect": "what the answer owes to the head, to first order: what its log-probability (nats), or score, loses as "
    "the head's output fades out",
}


def entropy(pattern: Array) -> Array:
    """Mean Shannon entropy of the heads' rows, in bits: mean over q of -sum over k of p(q,k) log2 p(q,k).

    pattern [layers, heads, Lq, Lk], rows sum to 1 -> [layers, heads]. From 0 (one key gets all) to log2 Lk (uniform).
    """
    safe = np.where(pattern > 0, pattern, 1.0)  # p log p -> 0 for p -> 0
    return np.asarray(-(pattern * np.log2(safe)).sum(-1).mean(-1), dtype=np.float32)


def distance(pattern: Array) -> Array:
    """Mean attention distance in tokens: mean over q of sum over k of p(q,k) |q - k|.

    pattern [layers, heads, L, L] -> [layers, heads]. Only for self-attention, where rows and columns are one text.
    """
    places = np.arange(pattern.shape[-1])
    apart = np.abs(places[:, None] - places[None, :])
    return np.asarray((pattern * apart).sum(-1).mean(-1), dtype=np.float32)


def focus(pattern: Array, rows: list[int], columns: list[int], *, same: bool) -> Array:
    """How sharply words look at words further off: mean over q of the largest p(q,k) over |q - k| > 1.

    Itself and its neighbours are left out: the sharpest heads of most models only look at the token before or after.

    pattern [layers, heads, Lq, Lk]; `rows` and `columns` are the positions of words (no special tokens; in a decoder
    not the first position either, which attention uses as a sink: Xiao et al. 2023, arXiv 2309.17453). `same`: rows and
    columns are one text; otherwise no k is left out. -> [layers, heads], 0 where no two words are that far apart.
    """
    if not rows or not columns:
        return np.zeros(pattern.shape[:2], dtype=np.float32)
    part = pattern[:, :, rows][:, :, :, columns].copy()  # [layers, heads, words, words]
    if same:
        apart = np.abs(np.asarray(rows)[:, None] - np.asarray(columns)[None, :])
        part[:, :, apart <= 1] = 0.0
    return np.asarray(part.max(-1).mean(-1), dtype=np.float32)


def cosine(a: Array, b: Array) -> Array:
    """Cosine of the angle between vectors along the last axis; 0 where one of them is zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    product = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(-1) / np.where(product > 0, product, 1.0), dtype=np.float32)
