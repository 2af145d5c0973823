"""Weights in blocks, a GGUF file's or our own, side by side, as the compiled kernels multiply by them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from cutaway import native
from cutaway.checkpoint.gguf_blocks import FLOAT_TYPES, StoredBlocks
from cutaway.nn.cpu.block_weight import Blocks, native_part
from cutaway.nn.cpu.int8 import Int8Rows, Int8Weight, joined_rows
from cutaway.nn.cpu.int8_tiles import Int8Tiles
from cutaway.nn.cpu.ops import at
from cutaway.nn.cpu.packed_weight import PackedWeight
from cutaway.nn.cpu.tile_order import tile_order


def side_by_side(parts: Sequence[Blocks], gated: bool = False) -> bool:
    """Whether the kernels can take them as one: a panel is of one part, half a gated one too."""
    if len({type(part) for part in parts}) > 1:
        return False
    if isinstance(parts[0], Int8Rows):
        return not gated or parts[0].n % 16 == 0
    if len({part.k for part in parts}) > 1 or len(parts) > (2 if gated else native.MOST_PARTS):
        return False
    if gated:
        return parts[0].n == parts[1].n and parts[0].n % 16 == 0
    return all(part.n % 32 == 0 for part in parts[:-1])


def laid_out(parts: Sequence[Blocks], bias: Tensor | None, gated: bool) -> BlockPanels | Int8Weight:
    """What multiplies by parts that can lie side by side."""
    rows = [part for part in parts if isinstance(part, Int8Rows)]
    if rows:
        return joined_rows(rows, bias, gated)
    return BlockPanels([part for part in parts if not isinstance(part, Int8Rows)], bias, gated)


class BlockPanels(PackedWeight):
    """Parts [n_i, k] one after another, or a gate and what it lets through.

    Those of a mapped file are brought into the order of the tiles where the kernels know one (`tile_order`); of others
    nothing is copied.

    Rows are multiplied as bytes with a scale for each 32 numbers (max / 127). Against float32 rows, each product of
    32 numbers w and x is off by at most sum|w| max|x| / 254.
    """

    def __init__(self, parts: Sequence[StoredBlocks | Int8Tiles], bias: Tensor | None, gated: bool = False) -> None:
        if not side_by_side(parts, gated):
            raise RuntimeError(f"parts of {[(part.n, part.k) for part in parts]} cannot lie side by side")
        total, self.k = sum(part.n for part in parts), parts[0].k
        self.n, self.gated, self.dtypes = total // 2 if gated else total, gated, (torch.float32,)
        self.bias = None if bias is None else bias.detach().float().contiguous()
        self.parts = parts
        of_bytes = any(isinstance(part, Int8Tiles) or part.kind not in FLOAT_TYPES for part in parts)
        self.tiles = tile_order(parts)
        lie = [native_part(part) for part in parts] if self.tiles is None else [one.part for one in self.tiles]
        places = (native.Part * native.MOST_PARTS)(*lie)
        self._blocks = native.Blocks(len(parts), of_bytes, places)
        bias_at = None if self.bias is None else at(self.bias, torch.float32, (total,), 0, True)
        blocks_at = ctypes.addressof(self._blocks)
        self._struct = native.Weight(blocks_at, bias_at, None, None, total, self.k, native.BLOCKS_WEIGHT, gated)
        self._at = ctypes.addressof(self._struct)

    @property
    def bytes(self) -> int:
        return sum(part.data.nbytes for part in self.parts)
