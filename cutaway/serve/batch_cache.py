"""The keys and values of texts that are written together, and that come and go at every step."""

from __future__ import annotations

from torch import Tensor

from cutaway.nn.cpu.memory import untouched_zeros
from cutaway.nn.kv_cache import Cache

COLUMNS = 256  # room for new tokens that is taken at a time


class BatchCache(Cache):
    """A `Cache` that texts can join.

    Its memory is one block of `slots` rows, of which the buffer is a view. Each text still ends in the same column; a
    text that joins is copied in, and those that are there stay where they are, unless the newcomer is longer and
    nothing is free on their left.
    """

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.block: Tensor | None = None  # [2 * layers, slots, n_kv_heads, columns, head_size]
        self.left = 0  # columns of the block before the buffer's first
        # of each row of the block, the first column that is not known to be zeros: of a text, its first one
        self.written: list[int] = []

    def _take(self, like: Tensor, before: int, columns: int) -> None:
        """A block with `before` free columns and then `columns`; what is held is copied; like: [2L, ?, H, ?, D]."""
        old, held = self.buffer, self.longest
        shape = (like.shape[0], self.slots, like.shape[2], before + columns, like.shape[4])
        self.block = untouched_zeros(shape, like)  # rows and columns that nobody uses cost no memory
        self.written = [before + columns] * self.slots
        if old is not None:
            for row, n in enumerate(self.lengths.tolist()):
                first = held - n
                self.block[:, row, :, before + first : before + held] = old[:, row, :, first:held]
                self.written[row] = before + first
        self.left = before
        self.buffer = self.block[:, : self.batch, :, before:]

    def _clean(self, row: int, end: int) -> None:
        """Make zeros of a row's columns of the block before `end`, where a text begins."""
        assert self.block is not None
        start = self.written[row]
        if start < end:
            self.block[:, row, :, start:end] = 0
        self.written[row] = end

    def _grow(self, like: Tensor, batch: int, columns: int) -> Tensor:
        buffer = self.buffer
        assert buffer is not None
        if buffer.shape[3] < columns:
            self._take(buffer, 0, columns + max(COLUMNS, columns // 4))
            buffer = self.buffer
            assert buffer is not None
        return buffer

    def select(self, index: Tensor) -> None:
        """As of every cache; here a text may only take the place of one that leaves."""
        wanted, lengths, longest = index.tolist(), self.lengths.tolist(), self.longest
        assert self.block is not None
        before = self.longest
        for to, at in enumerate(wanted):
            if to == at:
                continue
            if at < len(wanted):
                raise ValueError(f"text {at} cannot take the place {to}: it has one already")
            first = self.left + longest - lengths[at]
            self.block[:, to, :, first : self.left + longest] = self.block[:, at, :, first : self.left + longest]
            self._clean(to, first)
        self.buffer = self.block[:, : len(wanted), :, self.left :]
        self._reorder(index, wanted)
        self.left += before - self.longest

    def clear(self) -> None:
        """Forget every text; the memory stays for those to come."""
        self._set_lengths([], self.lengths.device)
        self.left = 0

    def join(self, other: Cache) -> None:
        """Take in the texts of `other`, after those that are there; `other` stays as it is."""
        source = other.buffer
        assert source is not None
        n, batch = other.batch, self.batch
        if batch + n > self.slots:
            raise ValueError(f"{batch} texts and {n} more do not fit into {self.slots} places")
        longest = max(self.longest, other.longest)
        shift = longest - self.longest
        if self.block is None or self.buffer is None or not batch:
            self.n_layers, self.lengths = other.n_layers, other.lengths[:0]
            self.longest = 0
            if self.block is None or self.block.shape[3] < longest + COLUMNS:
                self.buffer = None
                self._take(source, 0, longest + 2 * COLUMNS)
            self.left = 0
        elif shift > self.left:
            self._take(self.buffer, shift, self.longest + COLUMNS)
            self.left -= shift
        elif shift:
            self.left -= shift
        assert self.block is not None
        end = self.left + longest
        if end > self.block.shape[3]:
            raise AssertionError("the block is shorter than what it holds")
        self.buffer = self.block[:, : batch + n, :, self.left :]
        if shift:
            for row, own in enumerate(self.lengths.tolist()):
                self._clean(row, end - own)
        for place, own in enumerate(other.lengths.tolist()):
            row = batch + place
            self._clean(row, end - own)
            self.block[:, row, :, end - own : end] = source[:, place, :, other.longest - own : other.longest]
        self.columns = self.ids = self.source_ids = self.adapters = None
        self._set_lengths([*self.lengths.tolist(), *other.lengths.tolist()], other.lengths.device)


def single(of: Cache, held: Tensor) -> Cache:
    """A cache of one text from its keys and values [2 * layers, 1, n_kv_heads, n, head_size]."""
    cache = Cache()
    cache.n_layers = of.n_layers
    cache.buffer = held
    cache._set_lengths([held.shape[3]], of.lengths.device)
    return cache


def first_tokens(cache: Cache, text: int, n: int) -> Cache:
    """A copy of the first n tokens of one text of any cache."""
    assert cache.buffer is not None
    first = cache.longest - int(cache.lengths[text])
    return single(cache, cache.buffer[:, text : text + 1, :, first : first + n].clone())
