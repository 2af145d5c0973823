"""Two models on the same rows: is the one really better?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cutaway.errors import InputError
from cutaway.evaluate.evaluation import Evaluation, interval
from cutaway.evaluate.scoring import library

PERMUTATIONS, SEED = 10_000, 0


@dataclass(frozen=True)
class Comparison:
    """How two models differ in one measure.

    Attributes:
        measure: its name.
        difference: the first model's mean minus the second's.
        interval: its 95% bootstrap interval; rows are drawn in pairs.
        p_value: two-sided; of values that are 0 or 1 by McNemar's exact test (1947), of others by flipping the sign of
            each row's difference at random (Fisher's paired permutation test).
        wins, losses: rows on which the first is above the second, and below it.
    """

    measure: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    wins: int
    losses: int


def compare(one: Evaluation, other: Evaluation) -> list[Comparison]:
    """A comparison for each measure that both have by row.

    Raises InputError where the two are of different tasks or numbers of rows.
    """
    if one.task != other.task or one.rows != other.rows:
        raise InputError(
            f"Only evaluations on the same rows compare: {one.task} on {one.rows} rows, {other.task} on {other.rows}."
        )
    return [_paired(name, one.per_row[name], other.per_row[name]) for name in one.per_row if name in other.per_row]


def _paired(measure: str, one: np.ndarray, other: np.ndarray) -> Comparison:
    difference = one - other  # [rows]
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    if set(np.unique(difference)) <= {-1.0, 0.0, 1.0}:
        test = library("scipy.stats").binomtest
        p_value = float(test(wins, wins + losses).pvalue) if wins + losses else 1.0
    else:
        p_value = _sign_flips(difference)
    return Comparison(measure, float(difference.mean()), interval(difference), p_value, wins, losses)


def _sign_flips(difference: np.ndarray) -> float:
    draw = np.random.default_rng(SEED)
    seen, at_least = abs(difference.mean()), 0
    for _ in range(PERMUTATIONS):
        signs = draw.integers(0, 2, len(difference)) * 2 - 1
        at_least += abs((signs * difference).mean()) >= seen - 1e-12
    return (at_least + 1) / (PERMUTATIONS + 1)
