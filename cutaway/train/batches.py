"""Batches of an epoch, each a function of the seed, the epoch and its number: made anew, it is the same.

What the data draws at random (augmentation in the rows, masks in the collator) is drawn while its batch is made, from
numbers that belong to that batch. So a training that is resumed at batch 500 makes no other batch to get there, and
processes that work ahead make the same batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from cutaway.errors import InputError
from cutaway.train import chance
from cutaway.train.plan import Plan
from cutaway.train.rows import Rows, Stream

_STREAM = -2  # where other keys have the number of the batch


class Made:
    """Batches by number, for one epoch: what workers are given."""

    def __init__(
        self, rows: Rows, collate: Callable[[list[Any]], Any], seed: int, epoch: int, plan: list[list[int]]
    ) -> None:
        self.rows, self.collate, self.seed, self.epoch, self.plan = rows, collate, seed, epoch, plan

    def __getitem__(self, number: int) -> Any:
        with chance.drawn_from(self.seed, self.epoch, number):
            place(self.collate, self.seed, self.epoch, number)
            return self.collate(self.rows.take(self.plan[number]))


class Batches:
    """The training batches.

    Args:
        source: rows with or without a length.
        collate: a list of rows -> a batch.
        size: rows in a batch. seed: of the order and of everything drawn. shuffle: a new order in each epoch.
        drop_last: leave out a last, smaller batch. workers: processes that make batches ahead.
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
        lengths: list[int] | None = None,
        tokens: int | None = None,
    ) -> None:
        self.source, self.collate, self.size, self.seed = source, collate, size, seed
        self.drop_last, self.workers = drop_last, workers
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

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from batch `start` on."""
        if isinstance(self.source, Stream):
            return self._streamed(self.source, number, start)
        return self._planned(self.source, number, start)

    def _planned(self, rows: Rows, epoch: int, start: int) -> Iterator[Any]:
        assert self.plan is not None
        made = Made(rows, self.collate, self.seed, epoch, self.plan.batches(epoch))
        numbers = range(start, self.count or 0)
        if not self.workers:
            yield from (made[i] for i in numbers)
            return
        loader: Any = torch.utils.data.DataLoader(
            made,  # type: ignore[arg-type]
            batch_size=None,
            sampler=numbers,
            num_workers=self.workers,
            generator=torch.Generator(),  # without one it would draw from the generator that dropout uses
        )
        yield from loader

    def _streamed(self, stream: Stream, epoch: int, start: int) -> Iterator[Any]:
        rows = stream.rows()
        own: dict[str, Any] | None = None  # the stream's random numbers, between two batches
        number = 0
        while True:
            outside = chance.capture(devices=False)
            try:
                if own is None:
                    chance.seed_all(chance.seed_of(self.seed, epoch, _STREAM))
                else:
                    chance.restore(own)
                taken = list(itertools.islice(rows, self.size))
                own = chance.capture(devices=False)
            finally:
                chance.restore(outside)
            if not taken or (self.drop_last and len(taken) < self.size):
                return
            if number >= start:
                with chance.drawn_from(self.seed, epoch, number):
                    place(self.collate, self.seed, epoch, number)
                    batch = self.collate(taken)
                yield batch
            number += 1


def place(collate: Any, *key: int) -> None:
    """Tell a collator that draws from a seed of its own which batch comes, if it wants to know."""
    if getattr(collate, "seed", None) is not None and hasattr(collate, "step"):
        collate.step = chance.seed_of(*key)


def grouped(batches: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Batches, `size` at a time: the parts of one update. The last may be fewer."""
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def moved(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on `device`."""
    if hasattr(batch, "items"):
        return {k: moved(v, device) for k, v in batch.items()}
    return batch.to(device) if isinstance(batch, torch.Tensor) else batch
