"""Which rows stand in which batch of an epoch: a function of the seed, the epoch and the rows' lengths."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from cutaway.errors import InputError
from cutaway.train import rng
from cutaway.train.dataset import Rows

_ORDER, _LENGTHS = -1, -4  # where other keys have the number of the batch
_SPAN = 50  # batches that are sorted by length together: enough to save padding, few enough to keep chance


class Plan:
    """The batches of each epoch, as lists of rows.

    Args:
        n: how many rows. size: rows in a batch. seed: of the order.
        shuffle: a new order in each epoch. drop_last: leave out a last, smaller batch.
        lengths: of each row; None where batches do not depend on them.
        tokens: how many tokens a batch may hold, instead of `size` rows; needs lengths.
    """

    def __init__(
        self,
        n: int,
        size: int,
        seed: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        lengths: Sequence[int] | None = None,
        tokens: int | None = None,
    ) -> None:
        self.n, self.size, self.seed, self.shuffle, self.drop_last = n, size, seed, shuffle, drop_last
        self.lengths = lengths
        self.bins = packed(lengths, tokens) if lengths is not None and tokens is not None else None

    @property
    def count(self) -> int:
        """How many batches an epoch has."""
        if self.bins is not None:
            return len(self.bins)
        return self.n // self.size if self.drop_last else -(-self.n // self.size)

    def batches(self, epoch: int) -> list[list[int]]:
        """The rows of each batch of an epoch."""
        draw = torch.Generator().manual_seed(rng.seed_of(self.seed, epoch, _ORDER))

        def mixed(n: int) -> list[int]:
            return torch.randperm(n, generator=draw).tolist() if self.shuffle else list(range(n))

        order = mixed(self.n)
        if self.bins is not None:
            return self._filled(order, mixed(len(self.bins)))
        if self.lengths is None:
            return self._cut(order)
        span = _SPAN * self.size
        for start in range(0, self.n, span):
            order[start : start + span] = sorted(order[start : start + span], key=lambda row: -self.lengths[row])  # type: ignore[index]
        batches = self._cut(order)
        return [batches[i] for i in mixed(len(batches))]

    def _cut(self, order: list[int]) -> list[list[int]]:
        return [order[i * self.size : (i + 1) * self.size] for i in range(self.count)]

    def _filled(self, order: list[int], places: list[int]) -> list[list[int]]:
        """The bins in the order of `places`, each length taken by the next row in `order` that has it."""
        assert self.bins is not None and self.lengths is not None
        waiting: dict[int, list[int]] = {}
        for row in reversed(order):
            waiting.setdefault(self.lengths[row], []).append(row)
        return [[waiting[length].pop() for length in self.bins[i]] for i in places]

    def digest(self) -> str | None:
        """SHA-256 of the lengths: the plan of another data set is another one."""
        return None if self.lengths is None else hashlib.sha256(repr(list(self.lengths)).encode()).hexdigest()


def packed(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Lengths in as few groups of at most `tokens` as best-fit decreasing finds (Johnson, 1974, 11/9 of the fewest).

    The groups depend on the lengths alone, so each epoch has as many. A text that is longer than `tokens` stands alone.
    """
    bins: list[list[int]] = []
    open_: dict[int, list[int]] = {}  # room that is left -> bins
    rooms: list[int] = []  # its keys, sorted
    for length in sorted(lengths, reverse=True):
        at = bisect.bisect_left(rooms, length)
        if at == len(rooms):
            number, room = len(bins), max(tokens, length)
            bins.append([])
        else:
            room = rooms[at]
            number = open_[room].pop()
            if not open_[room]:
                del open_[room], rooms[at]
        bins[number].append(length)
        left = room - length
        if left:
            if left not in open_:
                open_[left] = []
                bisect.insort(rooms, left)
            open_[left].append(number)
    return bins


def lengths_of(rows: Rows, column: str, seed: int) -> list[int]:
    """How many tokens each row has: by `column` where the rows have it, else by input_ids without the padding.

    Raises:
        InputError: a row has neither.
    """
    names = getattr(rows.data, "column_names", None)
    if isinstance(names, list) and column in names:
        return [int(v) for v in rows.data[column]]
    found: list[int] = []
    with rng.drawn_from(seed, _LENGTHS):  # rows that draw must not disturb what follows
        for i in range(len(rows)):
            row: Any = rows.data[i]
            if isinstance(row, Mapping) and column in row:
                found.append(int(row[column]))
            elif isinstance(row, Mapping) and ("input_ids" in row or "attention_mask" in row):
                mask = row.get("attention_mask")
                found.append(len(row["input_ids"]) if mask is None else int(sum(_flat(mask))))
            else:
                raise InputError(
                    f"batches by length need {column!r} or 'input_ids' in every row; row {i} has "
                    f"{sorted(row) if isinstance(row, Mapping) else type(row).__name__}."
                )
    return found


def _flat(mask: object) -> list[int]:
    return torch.as_tensor(mask).flatten().tolist()  # several texts in one row count together
