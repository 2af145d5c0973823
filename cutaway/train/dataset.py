"""The rows of a data set, whatever holds them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from cutaway.errors import InputError

LABELS = ("label", "label_ids", "labels")


class Rows:
    """A data set with a length: `datasets.Dataset`, a list of dicts, a torch Dataset, a DataFrame.

    Raises:
        InputError: it is none of these, or holds no rows.
    """

    def __init__(self, data: Any, columns: set[str] | None = None) -> None:
        if hasattr(data, "to_dict") and hasattr(data, "iloc"):  # a DataFrame
            data = data.to_dict("records")
        if isinstance(data, (str, bytes, Mapping)) or not hasattr(data, "__getitem__"):
            known = f" Choose one of its parts: {sorted(map(str, data))}." if isinstance(data, Mapping) else ""
            raise InputError(f"a data set cannot be a {type(data).__name__}: give rows, each a dict of columns.{known}")
        self.data, self.columns = data, columns
        self.length = len(data)
        if not self.length:
            raise InputError("the data set has no rows.")

    def __len__(self) -> int:
        return self.length

    def take(self, places: Sequence[int]) -> list[Any]:
        """The rows at these places."""
        fetch = getattr(self.data, "__getitems__", None)
        rows = fetch(list(places)) if fetch is not None else [self.data[i] for i in places]
        return [chosen(row, self.columns) for row in rows]

    def labels(self) -> list[int]:
        """The label of every row, for class weights."""
        for name in LABELS:
            if name in getattr(self.data, "column_names", ()):
                return [int(v) for v in self.data[name]]
        rows = self.take(range(self.length))
        for name in LABELS:
            if isinstance(rows[0], Mapping) and name in rows[0]:
                return [int(row[name]) for row in rows]
        raise InputError("class_weights='balanced' needs a column 'label' with one class for each row.")


class Stream:
    """Rows that come one after another: a generator, a function that makes one, or an iterable data set.

    A generator can be read once; a function or an iterable gives the same rows in each epoch.
    """

    def __init__(self, data: Iterable[Any] | Callable[[], Iterable[Any]], columns: set[str] | None = None) -> None:
        self.data, self.columns = data, columns
        self.read = 0

    @property
    def once(self) -> bool:
        return isinstance(self.data, Iterator)

    def rows(self) -> Iterator[Any]:
        """From the first row on."""
        if self.once and self.read:
            raise InputError("a generator gives its rows once; pass the function that makes it, for several epochs.")
        self.read += 1
        source: Iterable[Any] = self.data() if callable(self.data) else self.data
        for row in source:
            yield chosen(row, self.columns)


def open_rows(data: Iterable[Any] | Callable[[], Iterable[Any]], columns: set[str] | None = None) -> Rows | Stream:
    """`Rows` where the data has a length, `Stream` where it has none."""
    if data is None:
        raise InputError("there is no data set; give Trainer train_dataset (to train) or eval_dataset (to evaluate).")
    if inspect.isgeneratorfunction(data) or (not hasattr(data, "__len__") and (callable(data) or _iterates(data))):
        return Stream(data, columns)
    return Rows(data, columns)


def _iterates(data: object) -> bool:
    return hasattr(data, "__iter__") or hasattr(data, "__next__")


def chosen(row: Any, columns: set[str] | None) -> Any:
    """The row without columns that the model does not take."""
    if columns is None or not isinstance(row, Mapping):
        return row
    kept = {name: value for name, value in row.items() if name in columns}
    if not kept:
        raise InputError(
            f"no column of the data set ({sorted(map(str, row))}) is one that the model takes; tokenize it first, or "
            "set remove_unused_columns=False for a collator that does."
        )
    return kept


def taken_columns(model: nn.Module, more: Iterable[str] = ()) -> set[str] | None:
    """The columns that a model's forward takes, and labels; None where it takes any."""
    forward: Callable[..., Any] = model.forward
    parameters = inspect.signature(forward).parameters.values()
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not names:
        return None
    return {*names, *LABELS, *more}
