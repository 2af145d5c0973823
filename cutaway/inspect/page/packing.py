"""Many numbers in few bytes: whole steps, block by block deflated, with a stated error.

A run of 12 layers x 12 heads x 512 tokens holds 38 million weights, and a page or a file has room for one or two bits
of each. Each tile (a head, a token's vector) has a step of its own, a fixed share of its mean absolute number, which a
few large ones hardly move. The share is the finest that fits this size, and what it costs is stated: no number is
further from the true one than `error`.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cutaway.inspect.measures import Array

SHARES = tuple(2.0 ** (-k / 4) for k in range(52, -8, -1))  # of a tile's mean absolute number, finest first
MAX_CODE = 65535  # the largest code
SAMPLE = 12  # blocks by which shares are judged before all are packed


@dataclass(frozen=True)
class Packed:
    """value = code * its tile's step.

    shape: of the values. tile: how many trailing axes share a step. steps: one for each tile. signed: codes are 0, -1,
    1, -2, ... in order. error: the largest difference from the true values. blocks: one for each matrix of the two
    trailing axes; deflated (zlib), the codes' low bytes and, where one is above 255, then their high bytes. broken: not
    all values were finite; the code MOST then stands for those that were not, and comes back as NaN.
    """

    shape: tuple[int, ...]
    tile: int
    steps: Array
    signed: bool
    error: float
    blocks: list[bytes]
    broken: bool = False

    def unpacked(self) -> Array:
        """The values, [*shape]."""
        if not self.blocks:
            return np.zeros(self.shape, np.float32)
        rows, columns = self.shape[-2:]
        tile_codes = np.stack([block_codes(block, rows * columns) for block in self.blocks])
        codes = tile_codes.reshape(len(self.steps), -1)
        values = _values(codes, self.steps, self.signed)
        if self.broken:
            values[codes == MAX_CODE] = np.nan
        return values.reshape(self.shape)


def pack(values: Array, max_bytes: float, *, tile: int = 2) -> Packed:
    """Numbers [..., rows, columns] in at most `max_bytes` bytes if the coarsest steps allow it."""
    values = np.asarray(values, np.float32)
    lost = ~np.isfinite(values)
    broken = bool(lost.any())
    if broken:
        values = np.where(lost, np.float32(0), values)
    shape, signed = values.shape, bool((values < 0).any())
    if not values.size:
        return Packed(shape, tile, np.zeros(0, np.float32), signed, 0.0, [])
    tiles = values.reshape(int(np.prod(shape[: len(shape) - tile])), -1)  # [tiles, numbers of one]
    lost = lost.reshape(tiles.shape)
    matrices = int(np.prod(shape[:-2]))
    largest = MAX_CODE - 1 if broken else MAX_CODE
    top = np.abs(tiles).max(1, initial=0.0).astype(np.float64)
    size = np.abs(tiles).mean(1, dtype=np.float64)
    least = np.maximum(top / (largest // 2 if signed else largest), 1e-30)

    def coded(some: slice, share: float) -> tuple[Array, NDArray[np.uint16], list[bytes]]:
        some_tiles = tiles.reshape(matrices, -1)[some]
        parts = some_tiles.reshape(len(some_tiles) * len(tiles) // matrices, -1)
        steps = np.maximum(size * share, least).astype(np.float32).reshape(matrices, -1)[some].ravel()
        codes = np.minimum(_codes(parts, steps, signed), largest).astype(np.uint16)
        if broken:
            codes[lost.reshape(matrices, -1)[some].reshape(codes.shape)] = MAX_CODE
        return steps, codes, _blocks(codes, len(some_tiles))

    sample = slice(0, None, max(matrices // SAMPLE, 1))
    weight = matrices / len(range(matrices)[sample])
    finest = bisect_left(
        range(len(SHARES) - 1), True, key=lambda i: weight * sum(map(len, coded(sample, SHARES[i])[2])) <= max_bytes
    )
    for share in SHARES[finest:]:
        steps, codes, blocks = coded(slice(None), share)
        if sum(map(len, blocks)) <= max_bytes:
            break
    error = float(np.abs(_values(codes, steps, signed) - tiles).max(initial=0.0, where=~lost))
    # a reader may multiply in another precision than float32
    return Packed(shape, tile, steps, signed, error + 2.0**-23 * float(top.max(initial=0.0)), blocks, broken)


def block_codes(block: bytes, numbers: int) -> NDArray[np.uint16]:
    """The codes of one block; ValueError where it does not hold exactly that many, before more memory is taken."""
    reader = zlib.decompressobj()
    try:
        raw = reader.decompress(block, 2 * numbers + 1)
    except zlib.error as error:
        raise ValueError(f"a block is damaged: {error}") from None
    if len(raw) not in (numbers, 2 * numbers) or not reader.eof:
        raise ValueError(f"a block does not hold the {numbers:,} numbers that it is said to hold")
    codes = np.frombuffer(raw, np.uint8, numbers).astype(np.uint16)
    if len(raw) > numbers:
        codes |= np.frombuffer(raw, np.uint8, numbers, numbers).astype(np.uint16) << 8
    return np.asarray(codes)


def _codes(tiles: Array, steps: Array, signed: bool) -> NDArray[np.int32]:
    integers = np.rint(tiles / steps[:, None]).astype(np.int32)
    if signed:
        integers = np.where(integers < 0, -2 * integers - 1, 2 * integers)
    return np.asarray(integers)


def _values(codes: NDArray[np.uint16], steps: Array, signed: bool) -> Array:
    integers: NDArray[Any] = codes
    if signed:
        integers = codes.astype(np.int32)
        integers = np.where(integers & 1, -(integers + 1) // 2, integers // 2)
    return np.asarray(integers.astype(np.float32) * steps[:, None], np.float32)


def _blocks(codes: NDArray[np.uint16], matrices: int) -> list[bytes]:
    found = []
    for matrix in codes.reshape(matrices, -1):
        raw = matrix.astype(np.uint8).tobytes()
        if (matrix > 255).any():
            raw += (matrix >> 8).astype(np.uint8).tobytes()
        # matches other than runs make noisy codes longer: this is smaller by 15% and takes a third of the time
        deflate = zlib.compressobj(strategy=zlib.Z_RLE, memLevel=9)
        found.append(deflate.compress(raw) + deflate.flush())
    return found
