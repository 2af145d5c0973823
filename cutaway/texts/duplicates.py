"""Texts that say the same: exact copies, and near ones by their vectors; which of each group to keep."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cutaway.errors import InputError
from cutaway.texts.table import TextTable, read_texts
from cutaway.texts.vectors import TextEncoder, TextVectors, text_vectors

BLOCK = 1024  # texts that are compared at once
KEEP = ("first", "last", "longest")


@dataclass(frozen=True)
class Copy:
    """A text that another one stands for: its row, how near it is to the one that is kept, and whether it is equal.

    Equal is what is the same letters once runs of white space count as one space and characters are composed (NFC).
    """

    row: int
    similarity: float
    exact: bool


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
        groups: row that is kept -> the copies of it, nearest first. Every copy is at least `threshold` near to the row
            that is kept, not merely to another copy: no chain joins texts that differ.
        rows: how many texts were compared.
        threshold: the least cosine of a near copy.
    """

    groups: dict[int, list[Copy]]
    rows: int
    threshold: float

    @property
    def copies(self) -> int:
        """How many rows may go."""
        return sum(len(group) for group in self.groups.values())

    def kept_for(self) -> dict[int, tuple[int, Copy]]:
        """Row of a copy -> (the row that is kept for it, the copy)."""
        return {copy.row: (row, copy) for row, group in self.groups.items() for copy in group}


def dedupe(
    table: Path | str | Sequence[str] | Sequence[Mapping[str, object]] | TextTable,
    *,
    model: TextEncoder | None = None,
    vectors: TextVectors | None = None,
    column: str = "text",
    threshold: float = 0.95,
    keep: str = "first",
    progress: Callable[[int, int], None] = lambda done, failed: None,
) -> Duplicates:
    """Groups of texts that say the same.

    Args:
        table: as in `read_texts`, or read already.
        model, vectors: what makes vectors, or the texts' vectors; without both only exact copies are found.
        threshold: the least cosine of two vectors whose texts count as near copies.
        keep: which of a group stays: the first row, the last, or the longest text (the first of several).
        progress: told how many texts were compared.

    Raises:
        InputError: a threshold or a rule that there is not; as `read_texts` and `text_vectors`.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold={threshold}: a cosine between 0 and 1, for example 0.95.")
    if keep not in KEEP:
        raise InputError(f"keep={keep!r}: it can be {', '.join(KEEP)}.")
    texts = table if isinstance(table, TextTable) else read_texts(table, column)
    if vectors is None and model is not None:
        vectors = text_vectors(texts, model)
    order = _order(texts.texts, keep)
    leader: dict[str, int] = {}
    groups: dict[int, list[Copy]] = {}
    own = []  # places of texts that are no exact copies, in the order in which they may be kept
    for place in order:
        first = leader.setdefault(_same(texts.texts[place]), place)
        if first == place:
            own.append(place)
        else:
            groups.setdefault(first, []).append(Copy(texts.rows[place], 1.0, True))
    if vectors is not None:
        if len(vectors) != len(texts):
            raise InputError(f"{len(vectors):,} vectors do not belong to {len(texts):,} texts.")
        for place, (kept, near) in _near(vectors.matrix, np.array(own), threshold, progress).items():
            whole = [Copy(texts.rows[place], near, False), *groups.pop(place, [])]
            # what was equal to a near copy is as near to the text that is kept as that copy
            moved = [Copy(one.row, near, False) for one in whole]
            groups.setdefault(kept, []).extend(moved)
    made = {
        texts.rows[place]: sorted(group, key=lambda one: (-one.similarity, one.row))
        for place, group in sorted(groups.items())
    }
    return Duplicates(made, len(texts), threshold)


def _order(texts: Sequence[str], keep: str) -> list[int]:
    places = list(range(len(texts)))
    if keep == "last":
        return places[::-1]
    return sorted(places, key=lambda i: -len(texts[i])) if keep == "longest" else places


def _same(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _near(
    matrix: torch.Tensor, own: NDArray[np.int64], threshold: float, progress: Callable[[int, int], None]
) -> dict[int, tuple[int, float]]:
    """place -> (the place that is kept for it, their cosine).

    In the order of `own`, a text is a copy of the nearest text that is kept before it, if that is near enough; else it
    is kept itself. Memory: the vectors that are kept, and one block of products.
    """
    found: dict[int, tuple[int, float]] = {}
    kept: list[int] = []
    pool = torch.empty(0, matrix.shape[1])  # vectors that are kept, grown by doubling
    for start in range(0, len(own), BLOCK):
        places = own[start : start + BLOCK]
        block = torch.nn.functional.normalize(matrix[torch.from_numpy(places)].float(), dim=-1)  # [block, width]
        best = torch.full((len(places),), -2.0)
        which = torch.zeros(len(places), dtype=torch.long)
        for low in range(0, len(kept), BLOCK * 8):
            products = block @ pool[low : min(low + BLOCK * 8, len(kept))].T  # [block, kept]
            most, at = products.max(dim=1)
            better = most > best
            best, which = torch.where(better, most, best), torch.where(better, at + low, which)
        inside = (block @ block.T).numpy()  # [block, block]
        new: list[int] = []  # of this block, places that are kept
        for i, place in enumerate(places.tolist()):
            score, keeper = float(best[i]), kept[int(which[i])] if kept else -1
            if new:
                j = max(new, key=lambda other: (inside[i, other], -other))
                if inside[i, j] > score:
                    score, keeper = float(inside[i, j]), int(places[j])
            if score >= threshold:
                found[place] = (keeper, min(score, 1.0))
            else:
                new.append(i)
        if len(kept) + len(new) > len(pool):
            grown = torch.empty(max(2 * len(pool), len(kept) + len(new)), matrix.shape[1])
            grown[: len(kept)] = pool[: len(kept)]
            pool = grown
        pool[len(kept) : len(kept) + len(new)] = block[new]
        kept += [int(places[i]) for i in new]
        progress(min(start + BLOCK, len(own)), 0)
    return found
