"""A matrix as a GGUF file holds it: rows of blocks, mapped from the file, in ggml's formats.

The bytes stay the file's. What the converters changed is said beside them, and undone where rows are looked up: the
order of rows in Llama's query and key matrices, and which rows of a joined matrix are meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cutaway.errors import CheckpointError

if TYPE_CHECKING:
    import torch

# ggml's number of a type -> numbers of a block, bytes of a block: the types that the kernels read (native/blocks.h)
BLOCKS: dict[int, tuple[int, int]] = {
    0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136),
}  # fmt: skip
FLOAT_TYPES = frozenset((0, 1, 30))


@dataclass(frozen=True)
class StoredBlocks:
    """A matrix [n, k] of numbers in blocks.

    Attributes:
        data: [n, bytes of a row] uint8, in the file's order.
        kind: ggml's number of the type. name: its name.
        k: numbers of a row.
        half: where heads lie as pairs (GGUF rotates neighbours), half the rows of a head; 0 where rows are in order.
    """

    data: torch.Tensor
    kind: int
    name: str
    k: int
    half: int = 0

    def __post_init__(self) -> None:
        n, width = self.data.shape
        per_block, size = BLOCKS[self.kind]
        if self.k % per_block or width != self.k // per_block * size or self.data.itemsize != 1:
            raise CheckpointError(f"rows of {width} bytes cannot hold {self.k} numbers of {self.name}.")
        if self.half and n % (2 * self.half):
            raise CheckpointError(f"{n} rows are no heads of {2 * self.half}.")

    @property
    def n(self) -> int:
        """How many rows there are."""
        return len(self.data)

    @property
    def nbytes(self) -> int:
        """How many bytes they are."""
        return self.data.nbytes

    def part(self, start: int, count: int) -> StoredBlocks:
        """Rows start .. start + count, which are whole heads where heads lie as pairs."""
        if self.half and (start % (2 * self.half) or count % (2 * self.half)):
            raise CheckpointError(f"rows {start} to {start + count} are no whole heads of {2 * self.half}.")
        return replace(self, data=self.data[start : start + count])

    def file_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Where rows [m] lie in the file."""
        if not self.half:
            return rows
        size = 2 * self.half
        at = rows % size
        return rows - at + 2 * (at % self.half) + at // self.half

    def dequantized(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows by their numbers [m] -> [m, k] float32, by the package `gguf`."""
        import numpy as np
        import torch
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        data = self.data[self.file_rows(rows)].numpy()
        kind = GGMLQuantizationType(self.kind)
        if kind == GGMLQuantizationType.F32:
            return torch.from_numpy(data.view(np.float32).copy())
        with np.errstate(all="ignore"):  # a damaged file may hold scales that are no numbers
            return torch.from_numpy(np.ascontiguousarray(dequantize(data, kind), np.float32))
