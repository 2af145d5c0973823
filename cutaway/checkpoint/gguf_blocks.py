"""A matrix as a GGUF file holds it: rows of blocks, mapped from the file, in ggml's formats.

The bytes stay the file's. What the converters changed is said beside them, and undone where rows are looked up: the
order of rows in Llama's query and key matrices, and which rows of a joined matrix are meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cutaway.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    import torch

# ggml's number of a type -> its name, numbers of a block, bytes of a block. They are written down here since the
# package `gguf`, which knows them too, takes longer to import than a small model to load.
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
# those that the kernels read (native/blocks.h) -> numbers of a block, bytes of a block
BLOCKS: dict[int, tuple[int, int]] = {
    kind: TYPES[kind][1:] for kind in (0, 1, 30, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23)
}
FLOAT_TYPES = frozenset((0, 1, 30))


@dataclass(frozen=True)
class StoredBlocks:
    """A matrix [n, k] of numbers in blocks.

    Attributes:
        data: [n, bytes of a row] uint8, in the file's order.
        kind: ggml's number of the type. name: its name.
        k: numbers of a row.
        half: where heads lie as pairs (GGUF rotates neighbours), half the rows of a head; 0 where rows are in order.
        mapped: whether `data` are pages of a file that were never written to, so that they can go and come back.
    """

    data: torch.Tensor
    kind: int
    name: str
    k: int
    half: int = 0
    mapped: bool = False

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
        if start == 0 and count == self.n:
            return self
        return replace(self, data=self.data[start : start + count])

    def __reduce__(self) -> tuple[type[StoredBlocks], tuple[torch.Tensor, int, str, int, int]]:
        """Copied or pickled, the bytes are no longer the file's."""
        return type(self), (self.data, self.kind, self.name, self.k, self.half)

    def file_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Where rows [m] lie in the file."""
        if not self.half:
            return rows
        size = 2 * self.half
        at = rows % size
        return rows - at + 2 * (at % self.half) + at // self.half

    def dequantized(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows by their numbers [m] -> [m, k] float32, by the package `gguf`."""
        import torch

        data = self.data[self.file_rows(rows)].numpy()
        return torch.from_numpy(dequantized_rows(data, self.kind))


def type_name(kind: int) -> str:
    """Ggml's name of a type, or its number where the type is newer than this table and no package is there to ask."""
    if kind in TYPES:
        return TYPES[kind][0]
    try:
        from gguf.constants import GGMLQuantizationType
    except ImportError:
        return str(kind)
    return GGMLQuantizationType(kind).name


def dequantized_rows(data: np.ndarray[Any, np.dtype[np.uint8]], kind: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows of blocks [m, bytes of a row] -> [m, numbers of a row] float32, in memory of their own.

    Raises:
        MissingExtraError: the type is not F32, and the package `gguf` is not installed.
        NotImplementedError: the package cannot undo the type.
    """
    import numpy as np

    if kind == 0:
        return data.view(np.float32).copy()
    try:
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as e:
        raise MissingExtraError(
            f"Dequantizing {type_name(kind)} needs the package `gguf`: pip install 'cutaway[gguf]'."
        ) from e
    with np.errstate(all="ignore"):  # a damaged file may hold scales that are no numbers; a product of them is none
        return np.ascontiguousarray(dequantize(data, GGMLQuantizationType(kind)), np.float32)
