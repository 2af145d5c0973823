"""How far annotators, or models, agree on labels: beyond chance, label by label, and where they differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cutaway.errors import InputError, counted

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval")
RESAMPLES, SEED = 1000, 0
Label = str | None


@dataclass(frozen=True)
class LabelAgreement:
    """One label between two: how often each gave it, how often both, and of that the share of agreement.

    agreement: 2 x both / (first + second), the specific agreement (Spitzer and Fleiss 1974); kappa: of this label
    against all others.
    """

    label: str
    first: int
    second: int
    both: int
    agreement: float
    kappa: float


@dataclass(frozen=True)
class PairAgreement:
    """Two annotators, on the items that both labelled.

    Attributes:
        first, second: their places among the annotators. items: how many both labelled.
        observed: the share of equal labels. expected: that of two who draw labels as often as these did.
        kappa: (observed - expected) / (1 - expected) (Cohen 1960), with a 95% bootstrap interval over items.
        labels: label by label. confusion: [labels, labels], rows of the first, columns of the second.
        differ: the items on which they differ, in order.
    """

    first: int
    second: int
    items: int
    observed: float
    expected: float
    kappa: float
    interval: tuple[float, float]
    labels: list[LabelAgreement]
    confusion: NDArray[np.int64]
    differ: list[int]


@dataclass(frozen=True)
class Agreement:
    """All annotators.

    Attributes:
        names: the labels, in order. level: how labels differ.
        alpha: Krippendorff's alpha over all annotators and items, holes allowed, with its 95% bootstrap interval.
        pairs: each two of them.
    """

    names: list[str]
    level: Level
    alpha: float
    interval: tuple[float, float]
    pairs: list[PairAgreement]

    def sentence(self) -> str:
        """What alpha says, in plain words."""
        if not math.isfinite(self.alpha):
            return "Everybody gave one label alone, so there is nothing to agree on beyond chance."
        if self.alpha <= 0:
            return "They agree no more than chance would have it."
        return (
            f"Of the disagreement that chance would bring, {self.alpha:.0%} is avoided (1 is full agreement, 0 is "
            "chance; 0.8 and more is commonly asked for)."
        )


def agree(*annotators: Sequence[Label], level: Level = "nominal") -> Agreement:
    """How far two or more annotators agree.

    Args:
        annotators: the labels of each for the same items in the same order; None where there is none.
        level: "nominal" labels are equal or not; "ordinal" ones have an order (numbers, or else the alphabet's);
            "interval" ones are numbers whose differences count. Only alpha knows it: kappa is nominal.

    Raises:
        InputError: fewer than two annotators, other numbers of items, no item that two have labelled, labels that are
            no numbers at the level "interval".
    """
    if len(annotators) < 2:
        raise InputError("Agreement takes two annotators or more.")
    if level not in LEVELS:
        raise InputError(f"level={level!r}: it can be {', '.join(LEVELS)}.")
    lengths = sorted({len(one) for one in annotators})
    if len(lengths) > 1:
        raise InputError(f"The annotators have {' and '.join(map(str, lengths))} items; they must be the same ones.")
    names = ordered({label for one in annotators for label in one if label is not None})
    values = _values(names, level)
    place = {name: i for i, name in enumerate(names)}
    table = np.array(  # [annotators, items], -1 where there is no label
        [[-1 if label is None else place[label] for label in one] for one in annotators], dtype=np.int64
    ).reshape(len(annotators), lengths[0])
    if not ((table >= 0).sum(axis=0) >= 2).any():
        raise InputError("No item has two labels, so there is nothing to compare.")
    alpha = krippendorff_alpha(table, len(names), level, values)
    draw = np.random.default_rng(SEED)
    drawn = [
        krippendorff_alpha(table[:, draw.integers(0, table.shape[1], table.shape[1])], len(names), level, values)
        for _ in range(RESAMPLES)
    ]
    pairs = [
        _pair(table, i, j, names)
        for i, j in itertools.combinations(range(len(table)), 2)
        if ((table[i] >= 0) & (table[j] >= 0)).any()
    ]
    return Agreement(names, level, alpha, _percentiles(drawn), pairs)


def ordered(names: set[str]) -> list[str]:
    """Labels in the order of their numbers where all are numbers, else of the alphabet."""
    try:
        return sorted(names, key=lambda name: (float(name), name))
    except ValueError:
        return sorted(names)


def cohen_kappa(confusion: NDArray[np.int64]) -> tuple[float, float, float]:
    """(kappa, observed, expected) of a confusion matrix [labels, labels]; kappa is NaN where one label is all."""
    total = confusion.sum()
    observed = float(np.trace(confusion) / total)
    expected = float(confusion.sum(axis=1) @ confusion.sum(axis=0) / total**2)
    return ((observed - expected) / (1 - expected) if expected < 1 else math.nan), observed, expected


def krippendorff_alpha(
    table: NDArray[np.int64], n_labels: int, level: Level, values: NDArray[np.float64] | None = None
) -> float:
    """1 - observed / expected disagreement, by the matrix of coincidences (Krippendorff 2011, "Computing alpha").

    Args:
        table: labels' numbers [annotators, items], -1 for none.
        values: the labels' numbers at the level "interval" [labels].

    NaN where no item has two labels, or all labels are one.
    """
    counts = np.stack([(table == label).sum(axis=0) for label in range(n_labels)], axis=1)  # [items, labels]
    given = counts.sum(axis=1)
    counts, given = counts[given >= 2], given[given >= 2]
    weights = 1 / np.maximum(given - 1, 1)
    coincidences = (counts * weights[:, None]).T @ counts - np.diag((counts * weights[:, None]).sum(axis=0))
    totals = coincidences.sum(axis=1)  # [labels]
    whole = totals.sum()
    if whole < 2:
        return math.nan
    distance = _distances(totals, level, values)
    observed = float((coincidences * distance).sum())
    expected = float((np.outer(totals, totals) * distance).sum() / (whole - 1))
    return 1 - observed / expected if expected > 0 else math.nan


def _distances(totals: NDArray[np.float64], level: Level, values: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """The squared distance of each two labels [labels, labels]."""
    n = len(totals)
    if level == "nominal":
        return 1.0 - np.eye(n)
    if level == "interval":
        assert values is not None
        return (values[:, None] - values[None, :]) ** 2
    before = np.cumsum(totals) - totals / 2  # the middle rank of each label; between two lies what is between them
    return (before[:, None] - before[None, :]) ** 2


def _values(names: list[str], level: Level) -> NDArray[np.float64] | None:
    if level != "interval":
        return None
    try:
        return np.array([float(name) for name in names])
    except ValueError as error:
        raise InputError(
            f"At the level interval labels are numbers; {str(error).split(':')[-1].strip()} is none."
        ) from None


def _pair(table: NDArray[np.int64], i: int, j: int, names: list[str]) -> PairAgreement:
    both = np.flatnonzero((table[i] >= 0) & (table[j] >= 0))
    first, second = table[i, both], table[j, both]
    confusion = confusion_of(first, second, len(names))
    kappa, observed, expected = cohen_kappa(confusion)
    draw = np.random.default_rng(SEED)

    def again() -> float:
        chosen = draw.integers(0, len(both), len(both))
        return cohen_kappa(confusion_of(first[chosen], second[chosen], len(names)))[0]

    interval = _percentiles([again() for _ in range(RESAMPLES)])
    return PairAgreement(
        i, j, len(both), observed, expected, kappa, interval, _each(confusion, names), confusion,
        both[first != second].tolist(),
    )  # fmt: skip


def confusion_of(first: NDArray[np.int64], second: NDArray[np.int64], n_labels: int) -> NDArray[np.int64]:
    """How often each two labels met [labels, labels]."""
    found: NDArray[np.int64] = np.bincount(first * n_labels + second, minlength=n_labels**2).astype(np.int64)
    return found.reshape(n_labels, n_labels)


def _each(confusion: NDArray[np.int64], names: list[str]) -> list[LabelAgreement]:
    total = int(confusion.sum())
    made = []
    for i, name in enumerate(names):
        first, second, both = int(confusion[i].sum()), int(confusion[:, i].sum()), int(confusion[i, i])
        if first + second == 0:
            continue
        against = np.array([[both, first - both], [second - both, total - first - second + both]], dtype=np.int64)
        made.append(LabelAgreement(name, first, second, both, 2 * both / (first + second), cohen_kappa(against)[0]))
    return made


def _percentiles(drawn: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of what was drawn; samples that say nothing (NaN) are left out."""
    finite = [value for value in drawn if math.isfinite(value)]
    if not finite:
        return math.nan, math.nan
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def matched(keys: Sequence[Sequence[Hashable]], told: Callable[[str], None] = lambda line: None) -> list[Hashable]:
    """The keys that all annotators have, in the first one's order.

    Raises:
        InputError: one has a key twice, or none is common.
    """
    for number, own in enumerate(keys, start=1):
        seen: set[Hashable] = set()
        twice = next((key for key in own if key in seen or seen.add(key)), None)  # type: ignore[func-returns-value]
        if twice is not None:
            raise InputError(f"Table {number} has the key {twice!r:.60} twice; a key names one row.")
    common = set(keys[0]).intersection(*keys[1:])
    if not common:
        raise InputError("The tables have no key in common; is --key the right column?")
    alone = sum(len(own) for own in keys) - len(keys) * len(common)
    if alone:
        told(f"{counted(alone, 'row')} {'is' if alone == 1 else 'are'} in one table alone and left out.")
    return [key for key in keys[0] if key in common]
