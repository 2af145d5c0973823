"""Searching the texts of a table by meaning: every text is compared, so nothing near is missed."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cutaway.errors import InputError, MissingExtraError
from cutaway.jsonfile import write_aside
from cutaway.texts.table import TextTable, read_texts
from cutaway.texts.vectors import TextEncoder, TextVectors, as_floats, text_vectors

BLOCK = 1 << 15  # rows of a float16 matrix that are widened together
WIDENED = 1 << 30  # bytes up to which a float16 matrix is widened once, in memory, and not anew for each query
MANY = 1_000_000  # texts from which an index is worth its while
RESCORED = 4  # candidates of an index for each answer; these are compared exactly


@dataclass(frozen=True)
class Hit:
    """A text that was found: its row (from 1), how near it is (cosine, or the model's inner product), its columns."""

    row: int
    score: float
    text: str
    values: Mapping[str, object]


class TextSearch:
    """A table that is searched again and again.

    Args:
        table, vectors: the texts, and their vectors in the same order.
        encoder: the model that made them.
        index: "exact", or "usearch" (pip install 'cutaway[index]'), which compares a query with a part of the texts
            alone: for more than a million of them. It is kept beside the vectors.
    """

    def __init__(self, table: TextTable, vectors: TextVectors, encoder: TextEncoder, index: str = "exact") -> None:
        if len(table) != len(vectors):
            raise InputError(f"{len(vectors):,} vectors do not belong to {len(table):,} texts.")
        self.table, self.vectors, self.encoder = table, vectors, encoder
        self.index = None if index == "exact" else _Index(vectors, index)
        matrix = vectors.matrix
        self.matrix = matrix.float() if self.index is None and 4 * matrix.numel() <= WIDENED else matrix

    def __call__(self, queries: str | Sequence[str], top_k: int = 10, least: float | None = None) -> list[list[Hit]]:
        """The `top_k` nearest texts of each query, nearest first; of equal ones the row that comes first.

        least: leave out what is less near.
        """
        if top_k < 1:
            raise InputError(f"top_k={top_k}: give at least 1.")
        texts = [queries] if isinstance(queries, str) else list(queries)
        asked = as_floats(self.encoder.encode_query(texts), self.vectors.cosine)  # [queries, width]
        return [self._hits(query, top_k, least) for query in asked]

    def _hits(self, query: NDArray[np.float32], top_k: int, least: float | None) -> list[Hit]:
        if self.index is None:
            scores = inner_products(self.matrix, query)
            places = nearest_places(scores, top_k)
            found = scores[places]
        else:
            near = self.index.near(query, RESCORED * top_k)
            scores = inner_products(self.matrix[torch.from_numpy(near)], query)
            best = nearest_places(scores, top_k)
            places, found = near[best], scores[best]
        rows = zip(places.tolist(), found.tolist(), strict=True)
        return [
            Hit(self.table.rows[i], score, self.table.texts[i], self.table.values[i])
            for i, score in rows
            if least is None or score >= least
        ]


def search(
    table: Path | str | Sequence[str] | Sequence[Mapping[str, object]],
    queries: str | Sequence[str],
    *,
    model: TextEncoder,
    column: str = "text",
    top_k: int = 10,
    least: float | None = None,
) -> list[list[Hit]]:
    """The nearest texts of a table for each query; `TextSearch` with everything before it.

    Raises:
        InputError: as `read_texts`, `text_vectors` and `TextSearch`.
    """
    read = read_texts(table, column)
    return TextSearch(read, text_vectors(read, model), model)(queries, top_k, least)


def inner_products(matrix: torch.Tensor, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """matrix [texts, width] times query [width], summed in float32: [texts]."""
    vector = torch.from_numpy(np.ascontiguousarray(query))
    if matrix.dtype == torch.float32:
        return (matrix @ vector).numpy()
    parts = [matrix[start : start + BLOCK].float() @ vector for start in range(0, len(matrix), BLOCK)]
    return torch.cat(parts).numpy()


def nearest_places(scores: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """The places of the `top_k` largest scores [texts], largest first; of equal ones the first."""
    count = min(top_k, len(scores))
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > least)
    equal = np.flatnonzero(scores == least)[: count - len(above)]
    places = np.concatenate([above, equal])
    ordered: NDArray[np.int64] = places[np.lexsort((places, -scores[places]))]
    return ordered


class _Index:
    """A graph over the vectors (HNSW, Malkov and Yashunin 2018) by the package usearch, kept beside them."""

    def __init__(self, vectors: TextVectors, name: str) -> None:
        if name != "usearch":
            raise InputError(f"index={name!r}: it can be exact or usearch.")
        try:
            from usearch.index import Index
        except ImportError as error:
            raise MissingExtraError("This index needs usearch: pip install 'cutaway[index]'.") from error
        matrix, file = vectors.matrix, vectors.file
        self.index = Index(ndim=matrix.shape[1], metric="ip", dtype="f16")
        kept = None
        if file is not None:
            kept = file.with_name(f"{file.name}.{_content(file)}.usearch")
            if kept.is_file():
                self.index.load(str(kept))
                return
        self.index.add(np.arange(len(matrix)), matrix.float().numpy())
        if kept is not None and file is not None:
            for old in file.parent.glob(f"{glob.escape(file.name)}.*.usearch"):
                old.unlink()
            write_aside(kept, lambda aside: self.index.save(str(aside)))

    def near(self, query: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """The places of about the nearest `count` vectors."""
        keys: NDArray[np.int64] = np.asarray(self.index.search(query, count).keys).astype(np.int64)
        return keys


def _content(file: Path) -> str:
    """A name for what a file holds."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
