"""The header of a GGUF file: metadata and the table of tensors, with every count and size checked before it is used.

Format: the GGUF specification (ggml-org/ggml, docs/gguf.md), versions 2 and 3, little-endian. The `gguf` package's own
reader takes seconds for a vocabulary and checks no sizes, so the header is walked here.
"""

from __future__ import annotations

import functools
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutaway.checkpoint.gguf_blocks import TYPES
from cutaway.errors import CheckpointError

MAX_VALUES = 2_000_000  # metadata values in all; a vocabulary of 256,000 tokens with its merges has about 1,000,000
MAX_TEXT = 64 << 20
MAX_KEYS = 4096
MAX_TENSORS = 100_000

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9


@dataclass(frozen=True)
class Stored:
    """One tensor of the file: its shape (outermost first), ggml type, and the bytes it takes in the file."""

    shape: tuple[int, ...]
    kind: int
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """Metadata by key, tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, Stored]


class _Cursor:
    """Reads values from the mapped file, never past its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.at = 0
        self.values = 0
        self.text = 0

    def wrong(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {why}. The file is truncated or damaged; download it again.")

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data) - self.at:
            raise self.wrong(f"{size:,} bytes are declared at byte {self.at:,}, but the file has {len(self.data):,}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def count(self, most: int, what: str) -> int:
        found: int = self.number("Q")
        if found > most:
            raise self.wrong(f"{found:,} {what} are declared; at most {most:,} are read")
        return found

    def string(self) -> str:
        size: int = self.number("Q")
        self.text += size
        if self.text > MAX_TEXT:
            raise self.wrong(f"more than {MAX_TEXT:,} bytes of text are declared")
        return self.take(size).decode("utf-8", "replace")  # a vocabulary may hold tokens that are no UTF-8

    def strings(self, length: int) -> list[str]:
        """As so many calls of `string`, which a vocabulary would make slow."""
        data, at, end, left = self.data, self.at, len(self.data), MAX_TEXT - self.text
        found, size_at = [], struct.Struct("<Q").unpack_from
        for _ in range(length):
            start = at + 8
            size = size_at(data, at)[0] if start <= end else end
            if size > left or start + size > end:  # `string` says which of the two is wrong
                self.at, self.text = at, MAX_TEXT - left
                self.string()
            at, left = start + size, left - size
            found.append(data[start:at].decode("utf-8", "replace"))
        self.at, self.text = at, MAX_TEXT - left
        return found

    def value(self, kind: int) -> Any:
        self.values += 1
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _BOOL:
            return self.number("B") != 0
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        raise self.wrong(f"metadata of the unknown type {kind}")

    def array(self) -> list[Any]:
        kind: int = self.number("I")
        length = self.count(MAX_VALUES - min(self.values, MAX_VALUES), "metadata values")
        self.values += length
        if kind in _NUMBERS:
            code = f"{length}{_NUMBERS[kind]}"
            return list(struct.unpack("<" + code, self.take(struct.calcsize("<" + code))))
        if kind == _BOOL:
            return [bool(b) for b in self.take(length)]
        if kind == _STRING:
            return self.strings(length)
        raise self.wrong(f"an array of the type {kind}, which has no use in a model")


def _sizes(kind: int) -> tuple[int, int] | None:
    """Elements and bytes of a block of a ggml type; None where nobody knows the type."""
    if kind in TYPES:
        return TYPES[kind][1:]
    try:
        from gguf.constants import GGML_QUANT_SIZES
    except ImportError:
        return None
    return {int(known): sizes for known, sizes in GGML_QUANT_SIZES.items()}.get(kind)


def read_header(path: Path) -> Header:
    """Read and check the header; CheckpointError if anything about it is wrong.

    A load asks for it several times (config, weights, tokenizer), and a vocabulary takes long to read: the last one is
    remembered as long as the file is the same.
    """
    try:
        state = path.stat()
    except OSError as e:
        raise CheckpointError(f"{path} cannot be read: {e}") from None
    return _parsed(path, state.st_mtime_ns, state.st_size, state.st_ino)


@functools.lru_cache(maxsize=1)
def _parsed(path: Path, *state: int) -> Header:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(_Cursor(path, data))
    except (OSError, ValueError) as e:
        if isinstance(e, CheckpointError):
            raise
        raise CheckpointError(f"{path} cannot be read: {e}") from None


def _read(cursor: _Cursor) -> Header:
    if cursor.take(4) != b"GGUF":
        raise cursor.wrong("it does not begin with 'GGUF'")
    version = cursor.number("I")
    if version not in (2, 3):
        raise cursor.wrong(f"GGUF version {version}; versions 2 and 3, little-endian, are read")
    tensor_count = cursor.count(MAX_TENSORS, "tensors")
    key_count = cursor.count(MAX_KEYS, "metadata keys")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.string()
        if key in metadata:
            raise cursor.wrong(f"the metadata key {key[:80]!r} is there twice")
        metadata[key] = cursor.value(cursor.number("I"))
    found: dict[str, Stored] = {}
    for _ in range(tensor_count):
        name = cursor.string()
        if name in found:
            raise cursor.wrong(f"the tensor {name[:80]!r} is there twice")
        found[name] = _stored(cursor, name)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 16 or alignment & (alignment - 1):
        raise cursor.wrong(f"general.alignment is {alignment!r}, no power of two from 8 to 65,536")
    start = -(-cursor.at // alignment) * alignment
    tensors = {n: Stored(t.shape, t.kind, t.begin + start, t.end + start) for n, t in found.items()}
    position, last = start, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin % alignment or tensor.begin < position or tensor.end > len(cursor.data):
            raise cursor.wrong(
                f"the tensor {name[:80]!r} lies at bytes {tensor.begin:,} to {tensor.end:,}: not a multiple of "
                f"{alignment}, over {last[:80]!r}, or beyond the file's {len(cursor.data):,} bytes"
            )
        position, last = tensor.end, name
    return Header(metadata, tensors)


def _stored(cursor: _Cursor, name: str) -> Stored:
    rank = cursor.number("I")
    if not 1 <= rank <= 4:
        raise cursor.wrong(f"the tensor {name[:80]!r} has {rank} dimensions; GGUF has 1 to 4")
    sizes = [cursor.number("Q") for _ in range(rank)]  # innermost first
    kind = cursor.number("I")
    if (block := _sizes(kind)) is None:
        raise cursor.wrong(f"the tensor {name[:80]!r} has the unknown type {kind}")
    per_block, block_bytes = block
    count = 1
    for size in sizes:
        count *= size
    if not all(0 < size < 1 << 40 for size in sizes) or sizes[0] % per_block:
        raise cursor.wrong(f"the tensor {name[:80]!r} has the sizes {sizes}, which its type cannot have")
    begin: int = cursor.number("Q")
    return Stored(tuple(reversed(sizes)), kind, begin, begin + count // per_block * block_bytes)
