"""A file's blocks in the order in which the compiled kernels multiply by them, made when they are first used.

The numbers, scales and bytes stay what they are; 16 rows lie side by side. A row times a weight is then as fast as
memory, and several rows need no order of their own in each call. The file's pages go back to the system: whoever reads
values, or a table's rows, has them mapped again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from weakref import WeakValueDictionary

import torch

from cutaway import native
from cutaway.checkpoint.gguf_blocks import StoredBlocks
from cutaway.locks.fork_lock import ForkLock
from cutaway.nn.cpu.block_weight import native_part
from cutaway.nn.cpu.int8_tiles import Int8Tiles
from cutaway.nn.cpu.memory import available_memory, unmap_pages, weight_memory
from cutaway.nn.cpu.ops import at

UNIT = 16  # rows that lie together, as in native/block_tiles.c
SPARE = 8  # so many times the weight must be free


class TileOrder:
    """Such a matrix.

    Attributes:
        part: it as the kernels read it.
        blocks: the file's, which nobody else may take the place of while this is there.
    """

    def __init__(self, blocks: StoredBlocks, size: int) -> None:
        library = native.LIBRARY
        assert library is not None
        self.blocks = blocks
        self.tiles = weight_memory(-(-blocks.n // UNIT) * size).view(-1, size)  # [units, bytes of 16 rows]
        tiles_at = at(self.tiles, self.tiles.dtype, self.tiles.shape)
        self.part = native.Part(tiles_at, blocks.n, size, 0, native.LAID_OUT + blocks.kind)
        lies = native_part(blocks)
        library.cw_lay_out(ctypes.addressof(lies), blocks.k, tiles_at, torch.get_num_threads())
        unmap_pages(blocks.data)


_lock = ForkLock()
# a layer alone and beside others; by the library, and where the blocks lie
_made: WeakValueDictionary[tuple[object, ...], TileOrder] = WeakValueDictionary()


def tile_order(parts: Sequence[StoredBlocks | Int8Tiles]) -> list[TileOrder] | None:
    """All the parts in that order.

    None where the kernels know none for one of them, where one is not a mapped file's, or where memory is short: then
    they stay as they lie.
    """
    library = native.LIBRARY
    blocks = [part for part in parts if isinstance(part, StoredBlocks) and part.mapped]
    if library is None or len(blocks) < len(parts):
        return None
    sizes = [library.cw_laid_out_bytes(part.kind, part.k) for part in blocks]
    if not all(sizes):
        return None
    with _lock:
        places = [(native.NAME, part.data.data_ptr(), *part.data.shape, part.kind, part.half) for part in blocks]
        known = [_made.get(place) for place in places]
        missing = sum(part.nbytes for part, one in zip(blocks, known, strict=True) if one is None)
        if missing * SPARE > available_memory():
            return None
        orders = [one or TileOrder(part, size) for one, part, size in zip(known, blocks, sizes, strict=True)]
        _made.update(zip(places, orders, strict=True))
    return orders
