"""Batches of an epoch, each a function of the seed, the epoch and its number: made anew, it is the same.

What the data draws at random (augmentation in the rows, masks in the collator) is drawn while its batch is made, from
numbers that belong to that batch. So a training that is resumed at batch 500 makes no other batch to get there, and
processes that work ahead make the same batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from cutaway.errors import InputError
from cutaway.train import rng
from cutaway.train.batch_plan import Plan
from cutaway.train.dataset import Rows, Stream
from cutaway.train.distributed import ProcessGroup

STREAM = -2  # where other keys have the number of the batch


class RankBatch(NamedTuple):
    """What one rank gets when each takes a batch, in the order of their numbers.

    mine: whether the batch is its own; where they do not go round, a rank gets that of the first, to compute along.
    held: how many ranks have one of their own.
    """

    batch: Any
    mine: bool
    held: int


class Made:
    """Batches by number, for one epoch: what workers are given."""

    def __init__(
        self, rows: Rows, collate: Callable[[list[Any]], Any], seed: int, epoch: int, plan: list[list[int]]
    ) -> None:
        self.rows, self.collate, self.seed, self.epoch, self.plan = rows, collate, seed, epoch, plan

    def __getitem__(self, number: int) -> Any:
        with rng.drawn_from(self.seed, self.epoch, number):
            place(self.collate, self.seed, self.epoch, number)
            return self.collate(self.rows.take(self.plan[number]))


class Batches:
    """The training batches.

    Args:
        source: rows with or without a length.
        collate: a list of rows -> a batch.
        size: rows in a batch. seed: of the order and of everything drawn. shuffle: a new order in each epoch.
        drop_last: leave out a last, smaller batch. workers: processes that make batches ahead.
        ahead: how many batches each of them makes ahead. start_method: how they are started ("fork", "spawn", ...).
        lengths: {row: its length} as a list, for batches of rows of like length; with `tokens`, for batches that hold
            up to so many tokens.
    """

    def __init__(
        self,
        source: Rows | Stream,
        collate: Callable[[list[Any]], Any],
        size: int,
        seed: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        workers: int = 0,
        ahead: int | None = None,
        start_method: str | None = None,
        lengths: list[int] | None = None,
        tokens: int | None = None,
    ) -> None:
        self.source, self.collate, self.size, self.seed = source, collate, size, seed
        self.drop_last, self.workers, self.ahead, self.start_method = drop_last, workers, ahead, start_method
        self.plan: Plan | None = None
        if isinstance(source, Rows):
            self.plan = Plan(
                len(source), size, seed, shuffle=shuffle, drop_last=drop_last, lengths=lengths, tokens=tokens
            )
        if isinstance(source, Rows) and drop_last and len(source) < size:
            raise InputError(f"dataloader_drop_last leaves nothing: {len(source)} rows, but a batch takes {size}.")

    @property
    def count(self) -> int | None:
        """How many batches an epoch has; None for a stream."""
        return None if self.plan is None else self.plan.count

    def turns(self, number: int, ranks: ProcessGroup, start: int = 0) -> Iterator[RankBatch]:
        """The turns of an epoch from batch `start` on. The batches are those of one process, whoever computes them."""
        if isinstance(self.source, Stream):
            yield from self._streamed(self.source, number, start, ranks)
            return
        count = self.count or 0
        firsts = range(start, count, ranks.size)
        own = [first + ranks.rank if first + ranks.rank < count else first for first in firsts]
        for first, batch in zip(firsts, self._planned(self.source, number, own), strict=True):
            yield RankBatch(batch, first + ranks.rank < count, min(ranks.size, count - first))

    def _planned(self, rows: Rows, epoch: int, numbers: Sequence[int]) -> Iterator[Any]:
        """The batches with these numbers."""
        assert self.plan is not None
        made = Made(rows, self.collate, self.seed, epoch, self.plan.batches(epoch))
        if not self.workers:
            yield from (made[i] for i in numbers)
            return
        loader: Any = torch.utils.data.DataLoader(
            made,  # type: ignore[arg-type]
            batch_size=None,
            sampler=numbers,
            num_workers=self.workers,
            prefetch_factor=self.ahead,
            multiprocessing_context=self.start_method,
            generator=torch.Generator(),  # without one it would draw from the generator that dropout uses
        )
        yield from loader

    def _streamed(self, stream: Stream, epoch: int, start: int, ranks: ProcessGroup) -> Iterator[RankBatch]:
        rows = stream.rows()
        drawn = rng.OwnNumbers(self.seed, epoch, STREAM)
        number = 0
        while True:
            with drawn():
                cut = [list(itertools.islice(rows, self.size)) for _ in range(ranks.size)]
            cut = [taken for taken in cut if len(taken) >= (self.size if self.drop_last else 1)]
            if not cut:
                return
            if number >= start:
                mine = ranks.rank < len(cut)
                at = ranks.rank if mine else 0
                with rng.drawn_from(self.seed, epoch, number + at):
                    place(self.collate, self.seed, epoch, number + at)
                    batch = self.collate(cut[at])
                yield RankBatch(batch, mine, len(cut))
            number += len(cut)


def place(collate: object, *key: int) -> None:
    """Tell a collator that draws from a seed of its own which batch comes, if it wants to know."""
    if getattr(collate, "seed", None) is not None and hasattr(collate, "step"):
        collate.step = rng.seed_of(*key)


def grouped(turns: Iterator[RankBatch], size: int) -> Iterator[list[RankBatch]]:
    """Turns, `size` at a time: one update. The last may be fewer."""
    group: list[RankBatch] = []
    for turn in turns:
        group.append(turn)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def moved(batch: object, device: torch.device) -> Any:
    """The batch with its tensors on `device`."""
    if hasattr(batch, "items"):
        return {k: moved(v, device) for k, v in batch.items()}
    return batch.to(device) if isinstance(batch, torch.Tensor) else batch
