"""A safetensors file: its header, checked in full before anything of the data is read, and its tensors.

The header needs no torch, which is imported when a tensor or its dtype is asked for.

Layout: 8 bytes, the little-endian length of the header; the header, JSON from names to dtype, shape and offsets; the
data. Source: the format's own description in the `safetensors` package.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from cutaway.errors import CheckpointError
from cutaway.jsonfile import MEGABYTE, parse_json

if TYPE_CHECKING:
    import torch

MAX_HEADER = 32 * MEGABYTE
MAX_RANK = 32

# Bytes of one number.
SIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "C64": 8,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}


@dataclass(frozen=True)
class Entry:
    """What a header says about one tensor: its dtype's name, its shape, and where its bytes lie in the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The entries and the metadata of a safetensors file; CheckpointError if anything about them is wrong."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
            if not 0 < length <= size - 8:
                told = f"its header is said to take {length:,} bytes" if length >= 0 else "it has no header"
                raise CheckpointError(
                    f"{path} has {size:,} bytes, but {told}: it is truncated or not a safetensors file. "
                    "Download or save it again."
                )
            if length > MAX_HEADER:
                raise CheckpointError(f"{path}: the header takes {length:,} bytes; at most {MAX_HEADER:,} are read.")
            header = file.read(length)
    except OSError as e:
        raise CheckpointError(f"{path} cannot be read: {e.strerror or e}.") from None
    fields = parse_json(header, f"The header of {path}", CheckpointError, max_bytes=MAX_HEADER)
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"The header of {path}: __metadata__ must map text to text.")
    available = size - 8 - length
    entries = {name: _entry(path, name, value, available) for name, value in fields.items()}
    _check_layout(path, entries, available)
    return entries, metadata


def _entry(path: Path, name: str, value: object, available: int) -> Entry:
    def wrong(why: str) -> CheckpointError:
        return CheckpointError(f"{path}: tensor {name[:200]!r} {why}. The file is damaged; download or save it again.")

    if not isinstance(value, dict):
        raise wrong(f"is described by a {type(value).__name__}, not by dtype, shape and data_offsets")
    kind, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(kind, str) or kind not in SIZES:
        raise wrong(f"has the dtype {str(kind)[:40]!r}; known are {', '.join(SIZES)}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_size(n) for n in shape):
        raise wrong(f"has the shape {str(shape)[:80]}, which is not a list of at most {MAX_RANK} sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(n) for n in offsets):
        raise wrong(f"has the data_offsets {str(offsets)[:80]}, which are not two positions")
    begin, end = offsets
    if not begin <= end <= available:
        raise wrong(f"lies at bytes {begin:,} to {end:,}, but the file has {available:,} bytes of data (truncated?)")
    needed = SIZES[kind]
    for n in shape:
        needed *= n
    if needed != end - begin:
        raise wrong(f"needs {needed:,} bytes for {kind} {shape}, but its data_offsets hold {end - begin:,}")
    return Entry(kind, tuple(shape), begin, end)


def _is_size(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 48


def _check_layout(path: Path, entries: dict[str, Entry], available: int) -> None:
    """Every byte of the data belongs to exactly one tensor, as the format demands."""
    position, last = 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            what = f"overlaps {last[:200]!r}" if entry.begin < position else "leaves unused bytes before it"
            raise CheckpointError(f"{path}: tensor {name[:200]!r} {what}. The file is damaged or not what it says.")
        position, last = entry.end, name
    if position != available:
        raise CheckpointError(
            f"{path}: its tensors take {position:,} bytes, but it has {available:,} bytes of data. The file is damaged."
        )


# The names of torch's dtypes.
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
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
        import torch

        dtype: torch.dtype = getattr(torch, DTYPES[self.entries[name].dtype])
        return dtype

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
