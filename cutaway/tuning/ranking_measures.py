"""How good vectors and rerankers are: retrieval, graded pairs, triplets, and rankings, with a value for each row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CUT = 10  # places of a ranking that count


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> Floats:
    """The cosine of every row of `a` [rows, width] with every row of `b` [others, width]: [rows, others]."""
    first, second = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    found: Floats = (first @ second.T).astype(np.float64)
    return found


def ranks(scores: Floats, right: Sequence[int]) -> NDArray[np.int64]:
    """The place, from 1, of the right one of each row's `scores` [rows, others]; equal ones count as before it."""
    own = scores[np.arange(len(scores)), list(right)]
    found: NDArray[np.int64] = (scores >= own[:, None]).sum(1).astype(np.int64)
    return found


def of_ranks(places: NDArray[np.int64]) -> dict[str, Floats]:
    """accuracy@1, MRR@10, NDCG@10 and recall@10 of each query with one right answer, from its place."""
    within = places <= CUT
    return {
        "accuracy_at_1": (places == 1).astype(np.float64),
        "mrr_at_10": np.where(within, 1 / places, 0.0),
        "ndcg_at_10": np.where(within, 1 / np.log2(places + 1), 0.0),
        "recall_at_10": within.astype(np.float64),
    }


def correlations(said: Floats, right: Floats) -> dict[str, float]:
    """Spearman's and Pearson's correlation; nothing where one of both does not vary."""
    if len(said) < 2 or said.std() == 0 or right.std() == 0:
        return {}

    def pearson(a: Floats, b: Floats) -> float:
        return float(np.corrcoef(a, b)[0, 1])

    return {"spearman": pearson(_ranked(said), _ranked(right)), "pearson": pearson(said, right)}


def _ranked(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    found: Floats = ((ends - count + 1 + ends) / 2)[place]
    return found


def of_groups(scores: Sequence[Floats], labels: Sequence[Floats]) -> dict[str, Floats]:
    """MRR@10 and NDCG@10 of each query's documents; queries without a right and a wrong one say nothing."""
    mrr, ndcg = [], []
    for own, right in zip(scores, labels, strict=True):
        if right.max() <= 0 or right.min() >= 1:
            continue
        order = np.argsort(-own, kind="stable")
        if np.ptp(own) == 0:  # a model that says the same of all has ranked nothing: the worst order counts
            order = np.argsort(right, kind="stable")
        hits = np.flatnonzero(right[order][:CUT] > 0.5)
        mrr.append(1 / (hits[0] + 1) if len(hits) else 0.0)
        worth = 1 / np.log2(np.arange(2, len(own) + 2))
        best = float((np.sort(right)[::-1] * worth)[:CUT].sum())
        ndcg.append(float((right[order] * worth)[:CUT].sum()) / best)
    return {"mrr_at_10": np.array(mrr), "ndcg_at_10": np.array(ndcg)}
