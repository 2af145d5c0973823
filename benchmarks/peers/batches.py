"""What a careful user of an engine without a text front writes: batches sorted by length, padding, mean pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 512  # tokens
SIZE = 32  # texts of a batch


class Tokens:
    """Token ids of texts, from a folder's tokenizer.json."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)

    def ids(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts)]

    def sorted_batches(self, texts: list[str]) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Places in `texts` and their ids, batches of `SIZE`, longest first."""
        ids = self.ids(texts)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        for start in range(0, len(order), SIZE):
            places = order[start : start + SIZE]
            yield places, [ids[i] for i in places]


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask, both int64 [B, L]."""
    width = max(map(len, rows))
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


def pooled(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean of the states [B, L, H] over the real tokens: [B, H]."""
    weights = mask.astype(np.float32)[..., None]  # [B, L, 1]
    return (states * weights).sum(axis=1) / weights.sum(axis=1)


def sorted_vectors(tokens: Tokens, texts: list[str], run: Callable[[np.ndarray, np.ndarray], Any]) -> np.ndarray:
    """Sentence vectors [texts, H] in the order given; `run` turns ids and mask [B, L] into states [B, L, H]."""
    rows: list[Any] = [None] * len(texts)
    for places, ids in tokens.sorted_batches(texts):
        inputs, mask = padded(ids)
        for place, vector in zip(places, pooled(run(inputs, mask), mask), strict=True):
            rows[place] = vector
    return np.stack(rows)
