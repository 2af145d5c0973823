"""Samplers and shards of upstream's Trainer, for data loaders of one's own; our Trainer plans its batches itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import torch
from torch import Generator
from torch.utils.data import Dataset, DistributedSampler, IterableDataset, Sampler

from cutaway.errors import ConfigError

_MOST = 50  # the most batches that are sorted together


def _lengths(dataset: Any, lengths: Sequence[int] | None, name: str | None) -> list[int]:
    """The lengths that are given, or those of the rows' `input_ids` (or of the field `name`)."""
    if lengths is not None:
        return [int(n) for n in lengths]
    if dataset is None:
        raise ConfigError("give a data set, or the lengths of its rows.")
    name = name or "input_ids"
    rows = [dataset[i] for i in range(len(dataset))]
    if not rows or not hasattr(rows[0], "keys") or name not in rows[0]:
        raise ConfigError(f"the rows have no {name!r} whose length could be taken: give lengths=.")
    return [len(row[name]) for row in rows]


def get_length_grouped_indices(
    lengths: Sequence[int], batch_size: int, mega_batch_mult: int | None = None, generator: Generator | None = None
) -> list[int]:
    """Row numbers in random order, but sorted by falling length inside every few batches; the longest row comes first.

    Args:
        lengths: of the rows. batch_size: rows of a batch.
        mega_batch_mult: how many batches are sorted together; by default a quarter of all, at most 50.
    """
    n = len(lengths)
    together = mega_batch_mult or min(n // (batch_size * 4), _MOST) or 1
    order = torch.randperm(n, generator=generator).tolist()
    size = together * batch_size
    groups = [sorted(order[i : i + size], key=lambda row: -lengths[row]) for i in range(0, n, size)]
    longest = max(range(len(groups)), key=lambda i: lengths[groups[i][0]])
    groups[0][0], groups[longest][0] = groups[longest][0], groups[0][0]  # so that a lack of memory shows at once
    return [row for group in groups for row in group]


class LengthGroupedSampler(Sampler[int]):
    """Rows of about the same length follow each other: `get_length_grouped_indices`, drawn anew each time."""

    def __init__(
        self,
        batch_size: int,
        dataset: Dataset[Any] | None = None,
        lengths: Sequence[int] | None = None,
        model_input_name: str | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.batch_size, self.generator = batch_size, generator
        self.lengths = _lengths(dataset, lengths, model_input_name)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=self.generator))


class DistributedLengthGroupedSampler(DistributedSampler[Any]):
    """`LengthGroupedSampler` for several processes: each reads every `num_replicas`-th row of one order."""

    def __init__(
        self,
        batch_size: int,
        dataset: Dataset[Any] | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
        drop_last: bool = False,
        lengths: Sequence[int] | None = None,
        model_input_name: str | None = None,
    ) -> None:
        self.lengths = _lengths(dataset, lengths, model_input_name)
        super().__init__(self.lengths, num_replicas, rank, seed=seed, drop_last=drop_last)  # type: ignore[arg-type]
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[int]:
        order = get_length_grouped_indices(
            self.lengths, self.batch_size, generator=Generator().manual_seed(self.seed + self.epoch)
        )
        order = order[: self.total_size] if self.drop_last else _looped(order, self.total_size)
        return iter(order[self.rank : self.total_size : self.num_replicas])


class DistributedSamplerWithLoop(DistributedSampler[Any]):
    """`DistributedSampler` whose rows fill whole batches: what lacks at the end is taken from the beginning."""

    def __init__(self, dataset: Dataset[Any], batch_size: int, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[int]:
        mine = list(super().__iter__())
        lacking = -len(mine) % self.batch_size
        # those that have a row of the last, uneven round begin one further: the others repeat that first row already
        first = int(self.rank < len(self.dataset) % self.num_replicas)  # type: ignore[arg-type]
        return iter(mine + _looped(mine, first + lacking)[first:])


def _looped(rows: list[Any], n: int) -> list[Any]:
    """n rows, those that lack taken from the beginning again and again."""
    return (rows * math.ceil(n / len(rows)))[:n] if rows else []


class ShardSampler(Sampler[int]):
    """The rows in order, batch after batch dealt out to the processes; all get as many, in whole batches."""

    def __init__(
        self,
        dataset: Sized,
        batch_size: int = 1,
        drop_last: bool = False,
        num_processes: int = 1,
        process_index: int = 0,
    ) -> None:
        self.batch_size, self.process_index = batch_size, process_index
        self.total_batch_size = batch_size * num_processes
        count = math.floor if drop_last else math.ceil
        self.rows, self.total = len(dataset), count(len(dataset) / self.total_batch_size) * self.total_batch_size

    def __len__(self) -> int:
        return self.total // self.total_batch_size * self.batch_size

    def __iter__(self) -> Iterator[int]:
        order = _looped(list(range(self.rows)), self.total)
        first = self.process_index * self.batch_size
        for i in range(first, self.total, self.total_batch_size):
            yield from order[i : i + self.batch_size]


class IterableDatasetShard(IterableDataset[Any]):
    """What one process reads of an iterable data set: batch after batch dealt out, all get as many, in whole batches.

    `num_examples` counts the rows of the whole data set, as far as it was read.
    """

    def __init__(
        self,
        dataset: Iterable[Any],
        batch_size: int = 1,
        drop_last: bool = False,
        num_processes: int = 1,
        process_index: int = 0,
        seed: int = 0,
    ) -> None:
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.num_processes, self.process_index = num_processes, process_index
        self.seed, self.epoch, self.num_examples = seed, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Another order, where the data set draws one."""
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        if not isinstance(self.dataset, Sized):
            raise TypeError("the data set does not know how many rows it has.")
        count = math.floor if self.drop_last else math.ceil
        return count(len(self.dataset) / (self.batch_size * self.num_processes)) * self.batch_size

    def __iter__(self) -> Iterator[Any]:
        self.num_examples = 0
        generator = getattr(self.dataset, "generator", None)
        if not hasattr(self.dataset, "set_epoch") and isinstance(generator, Generator):
            generator.manual_seed(self.seed + self.epoch)
        whole, first = self.batch_size * self.num_processes, self.process_index * self.batch_size
        begun: list[Any] = []  # the first rows, for those that lack at the end
        held: list[Any] = []
        for row in self.dataset:
            self.num_examples += 1
            held.append(row)
            if len(held) == whole:
                yield from held[first : first + self.batch_size]
                begun, held = begun or held, []
        if held and not self.drop_last:
            yield from _looped_after(held, begun or held, whole)[first : first + self.batch_size]


def _looped_after(held: list[Any], begun: list[Any], n: int) -> list[Any]:
    return held + _looped(begun, n - len(held))
