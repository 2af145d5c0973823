"""Beginnings of prompts that were read already, so that the next prompt that begins alike costs only its rest."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from cutaway.nn.kv_cache import Cache

LEAST = 16  # tokens in common that are worth a copy


@dataclass(frozen=True)
class Beginning:
    """A text that was read: its tokens, their keys and values."""

    ids: np.ndarray
    cache: Cache
    bytes: int


class PrefixCache:
    """Bounded by bytes; what was not used for longest goes first."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._held: OrderedDict[int, Beginning] = OrderedDict()
        self._next = 0

    def __len__(self) -> int:
        return len(self._held)

    def look_up(self, ids: np.ndarray) -> tuple[Beginning, int] | None:
        """The beginning that shares most with `ids`, and how many tokens; never all of them: the last one is run."""
        best, most, place = None, LEAST - 1, 0
        for key, one in self._held.items():
            n = min(len(one.ids), len(ids) - 1)
            if n <= most or one.ids[0] != ids[0]:
                continue
            differ = np.flatnonzero(one.ids[:n] != ids[:n])
            same = int(differ[0]) if len(differ) else n
            if same > most:
                best, most, place = one, same, key
        if best is None:
            return None
        self._held.move_to_end(place)
        return best, most

    def wants(self, ids: np.ndarray) -> bool:
        """Whether a text is worth keeping: long enough, small enough, and not there yet."""
        if len(ids) < LEAST or not self.most_bytes:
            return False
        return not any(len(one.ids) >= len(ids) and np.array_equal(one.ids[: len(ids)], ids) for one in self.all())

    def all(self) -> list[Beginning]:
        return list(self._held.values())

    def add(self, ids: np.ndarray, cache: Cache) -> None:
        """Keep a cache of one text, and let go of what it makes needless and of the oldest."""
        assert cache.buffer is not None
        size = cache.buffer.numel() * cache.buffer.element_size()
        if size > self.most_bytes:
            return
        for key, one in list(self._held.items()):
            if len(one.ids) <= len(ids) and np.array_equal(one.ids, ids[: len(one.ids)]):
                self._drop(key)
        self._held[self._next] = Beginning(ids, cache, size)
        self._next += 1
        self.bytes += size
        while self.bytes > self.most_bytes:
            self._drop(next(iter(self._held)))

    def _drop(self, key: int) -> None:
        self.bytes -= self._held.pop(key).bytes
