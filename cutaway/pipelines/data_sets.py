"""One column, or two, of a data set as the inputs of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch.utils.data import Dataset


class Rows(Protocol):
    """A data set with places: a list of dicts, or one of `datasets`."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Mapping[str, Any]: ...


class KeyDataset(Dataset[object]):
    """`dataset[i][key]` for each row."""

    def __init__(self, dataset: Rows, key: str) -> None:
        self.dataset, self.key = dataset, key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> object:
        return self.dataset[i][self.key]


class KeyPairDataset(Dataset[Any]):
    """{"text": dataset[i][key1], "text_pair": dataset[i][key2]} for each row."""

    def __init__(self, dataset: Rows, key1: str, key2: str) -> None:
        self.dataset, self.key1, self.key2 = dataset, key1, key2

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"text": self.dataset[i][self.key1], "text_pair": self.dataset[i][self.key2]}
