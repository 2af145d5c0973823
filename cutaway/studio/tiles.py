"""Parts of matrices as bytes: cut out of what is there, or computed when they are looked at and kept within a bound."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import numpy as np
import torch

from cutaway.inspect.measures import Array
from cutaway.inspect.pattern_rows import PatternRows, pooled
from cutaway.serve.problem import Problem

MOST_TILE = 1 << 20  # bytes of one tile of a long text
MOST_KEPT = 64 << 20  # bytes of all tiles that are kept
MOST_DIGITS = 20  # of a number in a query; Python itself refuses to read thousands of digits
Bytes = tuple[bytes, float, tuple[int, ...]]  # (content, what a step is worth, shape)


@dataclass(frozen=True)
class Tile:
    """Which part is asked for. `every`: the largest of each square of so many rows and columns, in place of all."""

    at: tuple[int, ...]
    rows: slice
    columns: slice
    every: int
    dtype: Literal["f32", "u8"]

    QUERY: ClassVar = ("at", "rows", "columns", "every", "dtype")

    @classmethod
    def asked(cls, query: Mapping[str, str], shape: tuple[int, ...], is_long: bool) -> Tile:
        """From a query, of a tensor of this shape.

        Raises:
            Problem: 400, a part that is not there, or, of a long text, that is larger than a tile may be.
        """
        at = _index(query["at"], shape[:-2]) if "at" in query else ()
        rows, columns = (
            _slice(query.get(name, ":"), name, size)
            for name, size in zip(("rows", "columns"), shape[-2:] if len(shape) > 1 else (1, 1), strict=True)
        )
        every, dtype = query.get("every", "1"), query.get("dtype", "f32")
        if not _is_count(every) or not 1 <= int(every) <= 1 << 16:
            raise Problem(400, f"every={every!r:.40}: give a number from 1 on.", param="every")
        if dtype not in ("f32", "u8"):
            raise Problem(400, f"dtype={dtype!r:.40}: give f32 or u8.", param="dtype")
        found = cls(at, rows, columns, int(every), cast('Literal["f32", "u8"]', dtype))
        if not is_long:
            return found
        if not at:
            raise Problem(400, "at: of so long a text, give the layer and the head, as in at=3.1.", param="at")
        numbers = -(-(rows.stop - rows.start) // found.every) * -(-(columns.stop - columns.start) // found.every)
        size = numbers * (4 if dtype == "f32" else 1)
        if size > MOST_TILE:
            raise Problem(
                400, f"rows, columns: {size:,} bytes, and a part of so long a text has at most {MOST_TILE:,}; ask for "
                "fewer, or with every=.", param="rows",
            )  # fmt: skip
        return found

    def cut(self, values: Array) -> Bytes:
        """The part of what is there."""
        if self.at:
            values = values[self.at]
        if values.ndim > 1:
            values = values[..., self.rows, self.columns]
        if self.every > 1:
            values = np.asarray(pooled(torch.from_numpy(np.ascontiguousarray(values, np.float32)), self.every).numpy())
        return self.coded(values)

    def coded(self, values: Array) -> Bytes:
        """Values as bytes: float32, or, true to half a step, of 255 steps up to the largest."""
        if self.dtype == "f32":
            return np.ascontiguousarray(values, "<f4").tobytes(), 1.0, values.shape
        scale = float(np.nanmax(np.abs(values), initial=0.0)) / 255 or 1.0
        return np.nan_to_num(np.rint(values / scale)).clip(0, 255).astype(np.uint8).tobytes(), scale, values.shape


class Tiles:
    """Tiles of long texts that were computed; those that were not looked at for longest go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "tiles")  # one is computed at a time, since each takes all cores

    @property
    def nbytes(self) -> int:
        return self._bytes

    async def of(self, name: str, rows: PatternRows, tile: Tile) -> Bytes:
        """A tile of the tensor called `name`; it is not computed if nobody waits any more when its turn comes."""
        key = name, repr(tile)
        found = self._look(key)
        if found is not None:
            return found
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._made, key, rows, tile)

    def _made(self, key: tuple[str, str], rows: PatternRows, tile: Tile) -> Bytes:
        found = self._look(key)  # whoever waited may find it made
        if found is None:
            found = tile.coded(rows.part(tile.at[0], tile.at[1], tile.rows, tile.columns, tile.every))
            self._keep(key, found)
        return found

    def _look(self, key: tuple[str, str]) -> Bytes | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: tuple[str, str], found: Bytes) -> None:
        with self._lock:
            self._kept[key] = found
            self._bytes += len(found[0])
            while self._bytes > MOST_KEPT:
                self._bytes -= len(self._kept.popitem(last=False)[1][0])


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) <= MOST_DIGITS


def _index(text: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    parts = text.split(".")
    if len(parts) != len(sizes) or not all(
        _is_count(part) and int(part) < n for part, n in zip(parts, sizes, strict=True)
    ):
        raise Problem(
            400, f"at={text!r:.40}: give {len(sizes)} numbers with dots, each below {list(sizes)}.", param="at"
        )
    return tuple(map(int, parts))


def _slice(text: str, name: str, size: int) -> slice:
    first, mark, last = text.partition(":")
    if not mark or not all(part == "" or _is_count(part) for part in (first, last)):
        raise Problem(400, f"{name}={text!r:.40}: give FIRST:LAST.", param=name)
    start = min(int(first or 0), size)
    return slice(start, max(start, min(int(last or size), size)))
