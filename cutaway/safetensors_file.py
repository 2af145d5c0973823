"""One safetensors file: its header checked in full before a tensor is read, its tensors memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from cutaway.errors import CheckpointError
from cutaway.safetensors_header import read_header

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class SafetensorsFile:
    """The tensors of one file. They stay valid after `close`: each keeps the mapped file alive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries, self.metadata = read_header(path)
        self._open: Any = None

    def names(self) -> list[str]:
        """The names of the tensors."""
        return list(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape, without reading data."""
        return self.entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """The stored dtype."""
        return DTYPES[self.entries[name].dtype]

    def read(self, name: str) -> torch.Tensor:
        """The tensor, mapped from the file (private pages: writing to it never changes the file)."""
        try:
            if self._open is None:
                self._open = safe_open(str(self.path), framework="pt")
            tensor: torch.Tensor = self._open.get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as e:
            raise CheckpointError(f"{self.path}: tensor {name!r} cannot be read: {e}") from e
        return tensor

    def close(self) -> None:
        """Close the file; tensors that were read stay valid."""
        self._open = None
