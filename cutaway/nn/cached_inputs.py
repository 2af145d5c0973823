"""What the tokens of a cache were computed from, where keys and values depend on how long the text is.

With dynamic NTK and LongRoPE, a text that outgrows the trained length gets other rotary frequencies, for its first
token too. In every layer but the first, keys and values follow from what the layers before made of the whole text: they
must then be computed again, from what entered the first block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.nn.packed_batch import PackedBatch

_GROW = 64


class CachedInputs:
    """The inputs of the first block, in a cache's columns: every text ends in the last one that is filled.

    Attributes:
        x: [batch, capacity, hidden]. positions: [batch, capacity], by which the tokens were turned.
        reaches: how long each text was when the keys and values that the cache holds were computed.
    """

    def __init__(self, x: Tensor, positions: Tensor, reaches: list[int]) -> None:
        self.x, self.positions, self.reaches = x, positions, reaches

    @classmethod
    def of(cls, x: Tensor, positions: Tensor, rows: PackedBatch, reaches: list[int]) -> CachedInputs:
        """Those of a prompt; x [batch, length, hidden] or [rows, hidden] as `rows` lie, positions alike."""
        x, positions, end = x.detach().flatten(0, -2), positions.flatten(), max(rows.lengths)
        inputs = cls(
            x.new_zeros(rows.batch, end + max(_GROW, end // 2), x.shape[-1]),
            positions.new_zeros(rows.batch, end + max(_GROW, end // 2)),
            reaches,
        )
        for g in rows.groups:
            where = slice(None) if g.texts is None else g.texts
            inputs.x[where, end - g.length : end] = x[g.rows].view(g.n, g.length, -1)
            inputs.positions[where, end - g.length : end] = positions[g.rows].view(g.n, g.length)
        return inputs

    def append(self, x: Tensor, positions: Tensor, at: int, reaches: list[int]) -> None:
        """New tokens from column `at` on; x [batch, n, hidden], positions [batch, n]."""
        end = at + x.shape[1]
        if self.x.shape[1] < end:
            more = max(_GROW, end // 2)
            self.x = torch.cat((self.x[:, :at], self.x.new_zeros(x.shape[0], end - at + more, x.shape[-1])), 1)
            self.positions = torch.cat(
                (self.positions[:, :at], self.positions.new_zeros(x.shape[0], end - at + more)), 1
            )
        self.x[:, at:end], self.positions[:, at:end] = x.detach(), positions
        self.reaches = reaches

    def select(self, index: Tensor, gone: int) -> CachedInputs:
        """Those of the texts `index`, without the first `gone` columns."""
        reaches = [self.reaches[i] for i in index.tolist()]
        return CachedInputs(self.x[index, gone:], self.positions[index, gone:], reaches)

    def move(self, text: int, at: int, to: int, n: int) -> None:
        """Move n tokens of a text from column `at` to column `to`."""
        for held in (self.x, self.positions):
            held[text, to : to + n] = held[text, at : at + n].clone()

    def copy(self, columns: int) -> CachedInputs:
        """The same in other memory."""
        return CachedInputs(self.x[:, :columns].clone(), self.positions[:, :columns].clone(), [*self.reaches])

    def tensors(self, columns: int) -> dict[str, Tensor]:
        """What a file keeps of them."""
        found = {"inputs.x": self.x[:, :columns], "inputs.positions": self.positions[:, :columns]}
        return {n: x.contiguous() for n, x in found.items()} | {"inputs.reaches": torch.tensor(self.reaches)}

    @classmethod
    def read(cls, tensors: dict[str, Tensor], batch: int, columns: int) -> CachedInputs | None:
        """What `tensors` gave, None where a file has none of it; ValueError where it does not fit."""
        parts = [tensors.get(f"inputs.{name}") for name in ("x", "positions", "reaches")]
        x, positions, reaches = parts
        if x is None and positions is None and reaches is None:
            return None
        if x is None or positions is None or reaches is None:
            raise ValueError("inputs of which parts are missing")
        typed = positions.dtype == reaches.dtype == torch.int64 and x.is_floating_point() and x.dim() == 3
        shapes = [tuple(part.shape[:2]) for part in (x, positions)] + [(*reaches.shape, columns)]
        if not typed or positions.dim() != 2 or shapes != [(batch, columns)] * 3:
            raise ValueError(f"{[list(part.shape) for part in (x, positions, reaches)]} inputs of {batch} texts")
        if bool((positions < 0).any()) or bool((positions >> 31).any()) or bool((reaches < 0).any()):
            raise ValueError("positions that no text has")
        return cls(x, positions, reaches.tolist())
