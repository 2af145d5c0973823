"""Iterators over the steps of a pipeline of one's own, under upstream's names: in a row, cut apart, gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, cast

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from cutaway.errors import InputError

Step = Callable[..., Any]


class PipelineDataset(Dataset[object]):
    """`process(dataset[i], **params)` for each row."""

    def __init__(self, dataset: Sequence[Any], process: Step, params: Mapping[str, Any]) -> None:
        self.dataset, self.process, self.params = dataset, process, dict(params)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> object:
        return self.process(self.dataset[i], **self.params)


class PipelineIterator(IterableDataset[Any]):
    """`infer(one, **params)` for each that `loader` gives.

    With `loader_batch_size`, what `infer` gives is a batch (a dict of tensors, arrays, lists or tuples of layers, or
    one tensor), and its rows come one by one: a row of a tensor keeps its first axis, [1, ...].
    """

    def __init__(
        self,
        loader: Iterable[Any],
        infer: Step,
        params: Mapping[str, Any],
        loader_batch_size: int | None = None,
    ) -> None:
        self.loader, self.infer, self.params = loader, infer, dict(params)
        self.loader_batch_size = None if loader_batch_size == 1 else loader_batch_size

    def __len__(self) -> int:
        """TypeError where the loader has no length."""
        return len(cast(Sized, self.loader))

    def _rows(self, item: object) -> Iterator[Any]:
        made = self.infer(item, **self.params)
        if self.loader_batch_size is None:
            yield made
        else:
            yield from unbatched(made)

    def __iter__(self) -> Iterator[Any]:
        for item in self.loader:
            yield from self._rows(item)


class PipelineChunkIterator(PipelineIterator):
    """As `PipelineIterator`, where `infer` gives several things for each input, which come one after another."""

    def _rows(self, item: object) -> Iterator[Any]:
        yield from self.infer(item, **self.params)


class PipelinePackIterator(PipelineIterator):
    """The rows of `PipelineIterator` in lists, each up to the one whose `is_last` is true; `is_last` is taken out."""

    def __iter__(self) -> Iterator[list[Any]]:
        gathered: list[Any] = []
        for row in super().__iter__():
            if not isinstance(row, dict) or "is_last" not in row:
                raise InputError("each row must be a dict with is_last, which says where a list of rows ends.")
            is_last = bool(row.pop("is_last"))
            gathered.append(row)
            if is_last:
                yield gathered
                gathered = []
        if gathered:
            yield gathered


def unbatched(batch: object) -> Iterator[Any]:
    """The rows of a batch: one tensor [rows, ...], or a mapping whose values have as many rows each."""
    if isinstance(batch, Tensor):
        yield from (row[None] for row in batch)
        return
    if not isinstance(batch, Mapping):
        raise InputError(f"a batch is a tensor or a dict of batches, not {type(batch).__name__}.")
    sizes = {_size(value) for value in batch.values() if value is not None}
    if len(sizes) != 1:
        raise InputError(f"the values of a batch must have as many rows each; they have {sorted(sizes)}.")
    for i in range(sizes.pop()):
        row = {name: None if value is None else _row(value, i) for name, value in batch.items()}
        yield type(batch)(row) if isinstance(batch, dict) and type(batch) is not dict else row


def _size(value: object) -> int:
    """How many rows; of a tuple, which holds a tensor of each layer, those of its first."""
    return _size(value[0]) if isinstance(value, tuple) else len(value)  # type: ignore[arg-type]


def _row(value: object, i: int) -> object:
    if isinstance(value, tuple):
        return tuple(_row(layer, i) for layer in value)
    return value[i][None] if isinstance(value, Tensor | np.ndarray) else value[i]  # type: ignore[index]
