"""The library's batches as a DataLoader that hooks may wrap or replace, and any loader as the library's batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, cast

import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler
from torch.utils.data.distributed import DistributedSampler

from cutaway.errors import InputError
from cutaway.train import rng
from cutaway.train.arguments import TrainingArguments
from cutaway.train.batch_plan import Plan, lengths_of
from cutaway.train.batches import STREAM, Batches, RankBatch
from cutaway.train.dataset import Rows, Stream
from cutaway.train.distributed import ProcessGroup


class PlannedSampler(Sampler[int]):
    """The rows of an epoch in the order in which the batches take them.

    Args:
        data: whose rows. batches: those that take them, as soon as they are known.
    """

    def __init__(self, data: Any, batches: Batches | None = None) -> None:
        self.data_source, self.batches, self.epoch = data, batches, 0

    def __iter__(self) -> Iterator[int]:
        if self.batches is None or self.batches.plan is None:
            return iter(range(len(self.data_source)))
        return (row for batch in self.batches.plan.batches(self.epoch) for row in batch)

    def __len__(self) -> int:
        return len(self.data_source)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch's order comes next."""
        self.epoch = epoch


class RandomOrder(PlannedSampler):
    """A new order in each epoch, which follows from the seed."""


class SequentialOrder(PlannedSampler):
    """The order of the data."""


class ByLength(PlannedSampler):
    """Rows of like length stand together, in an order that is new in each epoch."""


class PlannedDataset(torch.utils.data.Dataset[Any]):
    """Rows with a length, without the columns that the model does not take."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Any:
        return self.rows.take([place])[0]


class _Endless(IterableDataset[Any]):
    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(cast(Any, self.batches.source).rows())


class PlannedLoader(DataLoader[Any]):
    """A DataLoader over the batches that the training itself takes: a function of the seed and the epoch.

    Attributes:
        batches: they. epoch: which one is read next; it goes on with each reading of training data.
    """

    def __init__(self, batches: Batches, data: Any, sampler: Sampler[int] | None, *, training: bool) -> None:
        self.batches, self.epoch, self.training = batches, 0, training
        if isinstance(batches.source, Rows):
            if isinstance(sampler, PlannedSampler):
                sampler.batches = batches
            kept = (
                data if hasattr(data, "__getitem__") and not hasattr(data, "iloc") else PlannedDataset(batches.source)
            )
            super().__init__(
                kept,
                batch_size=batches.size,
                sampler=sampler,
                collate_fn=batches.collate,
                drop_last=batches.drop_last,
                num_workers=batches.workers,
                prefetch_factor=batches.ahead,
                multiprocessing_context=batches.start_method,
            )
        else:
            stream = data if isinstance(data, IterableDataset) else _Endless(batches)
            super().__init__(stream, batch_size=batches.size, collate_fn=batches.collate, drop_last=batches.drop_last)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        epoch = self.epoch
        self.epoch += int(self.training)
        return (turn.batch for turn in self.batches.turns(epoch, ProcessGroup()))

    def __len__(self) -> int:
        if self.batches.count is None:
            raise TypeError("nobody knows how many batches these rows make: they come one after another.")
        return self.batches.count

    @property
    def total_batch_size(self) -> int:
        """Rows of one batch, under the name that loaders of accelerate have."""
        return int(self.batches.size)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch is read next."""
        self.epoch = epoch


class LoadedBatches:
    """The batches of any loader (or list of batches), read as the training's own: each process computes its share.

    What the loader draws follows from the seed and the epoch, so a resumed training gets the same batches; those before
    it are made and passed over.
    """

    def __init__(self, loader: Any, seed: int, ranks: int = 1) -> None:
        self.source, self.seed, self.plan, self.ranks = loader, seed, None, ranks
        self.size = int(getattr(loader, "batch_size", None) or 1)
        self.drop_last = bool(getattr(loader, "drop_last", False))

    @property
    def _shared_out(self) -> bool:
        """Whether its sampler gives each process other rows already."""
        return isinstance(getattr(self.source, "sampler", None), DistributedSampler)

    @property
    def count(self) -> int | None:
        """How many batches an epoch has, over all processes; None where nobody knows."""
        try:
            return len(self.source) * (self.ranks if self._shared_out else 1)
        except (TypeError, NotImplementedError):
            return None

    def turns(self, number: int, ranks: ProcessGroup, start: int = 0) -> Iterator[RankBatch]:
        """The turns of an epoch from batch `start` on."""
        for one in (self.source, getattr(self.source, "sampler", None), getattr(self.source, "batch_sampler", None)):
            if one is not None and hasattr(one, "set_epoch"):
                one.set_epoch(max(0, number))
        drawn = rng.OwnNumbers(self.seed, number, STREAM)
        with drawn():
            batches = iter(self.source)
        at = 0
        while True:
            with drawn():
                taken = list(itertools.islice(batches, 1 if self._shared_out else ranks.size))
            if not taken:
                return
            if at >= start:
                mine = self._shared_out or ranks.rank < len(taken)
                held = ranks.size if self._shared_out else len(taken)
                yield RankBatch(taken[ranks.rank if mine and not self._shared_out else 0], mine, held)
            at += ranks.size if self._shared_out else len(taken)


class EpochBatches(Protocol):
    """The batches of each epoch, as a training reads them; `Batches` and `LoadedBatches` are such."""

    size: int
    seed: int
    drop_last: bool

    @property
    def source(self) -> Any: ...

    @property
    def plan(self) -> Plan | None: ...

    @property
    def count(self) -> int | None: ...

    def turns(self, number: int, ranks: ProcessGroup, start: int = 0) -> Iterator[RankBatch]: ...


def batches_of(loader: Iterable[Any], seed: int, ranks: int = 1) -> EpochBatches:
    """The batches behind a loader: the library's own, or those that it gives each of so many processes."""
    return loader.batches if isinstance(loader, PlannedLoader) else LoadedBatches(loader, seed, ranks)


def training_order(args: TrainingArguments, data: Any) -> PlannedSampler | None:
    """The order of the training rows that the arguments ask for; None for rows without a length."""
    if data is None or not hasattr(data, "__len__"):
        return None
    if args.train_sampling_strategy == "sequential":
        return SequentialOrder(data)
    return ByLength(data) if args.train_sampling_strategy == "group_by_length" else RandomOrder(data)


def loader_of(
    args: TrainingArguments,
    source: Rows | Stream,
    data: Any,
    collate: Callable[[list[Any]], Any],
    size: int,
    sampler: Sampler[int] | None,
    *,
    training: bool,
) -> DataLoader[Any]:
    """A loader of the rows `source` of `data` in batches of `size`, in the order of `sampler`.

    A sampler of the user's own is read by torch's loader; the library's orders by a `PlannedLoader`.

    Raises:
        InputError: batches by length are asked for, and the rows have no length.
    """
    workers, ahead = args.dataloader_num_workers, args.dataloader_prefetch_factor
    start_method = args.dataloader_multiprocessing_context
    if isinstance(source, Rows) and sampler is not None and not isinstance(sampler, PlannedSampler):
        return DataLoader(
            PlannedDataset(source),
            batch_size=size,
            sampler=sampler,
            collate_fn=collate,
            drop_last=args.dataloader_drop_last,
            num_workers=workers,
            prefetch_factor=ahead,
            multiprocessing_context=start_method,
            persistent_workers=args.dataloader_persistent_workers and workers > 0,
            in_order=args.dataloader_in_order,
        )
    if not training:
        batches = Batches(
            source, collate, size, args.seed, shuffle=False, workers=workers, ahead=ahead, start_method=start_method
        )
        return PlannedLoader(batches, data, sampler, training=False)
    seed = args.seed if args.data_seed is None else args.data_seed
    lengths: list[int] | None = None
    if args.train_sampling_strategy == "group_by_length" or args.per_device_train_batch_tokens:
        if isinstance(source, Stream):
            raise InputError("batches by length need to know all lengths first; give rows with a length.")
        lengths = lengths_of(source, args.length_column_name, seed)
    batches = Batches(
        source,
        collate,
        size,
        seed,
        shuffle=not isinstance(sampler, SequentialOrder),
        drop_last=args.dataloader_drop_last,
        workers=workers,
        ahead=ahead,
        start_method=start_method,
        lengths=lengths,
        tokens=args.per_device_train_batch_tokens,
    )
    return PlannedLoader(batches, data, sampler, training=True)
