"""The C library's heap: what is given back, and what is kept for the next layer; and pages for weights."""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway.locks.fork_lock import ForkLock

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers of these settings
# glibc raises both by itself, up to these, when it sees large blocks come and go; but a step too late and a little too
# low for tensors of one size, so that each layer's results would be new pages, which the system must find and clear
_MAPPED, _KEPT = 32 << 20, 64 << 20
_HUGE, _CHUNK, _LARGE = 2 << 20, 64 << 20, 1 << 19
_NO_RESERVE = 0x4000  # MAP_NORESERVE of Linux, which Python names from 3.13 on
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@functools.cache
def _function(name: str) -> Any:
    """A function of the C library, or None where it has none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


def release_freed_memory() -> None:
    """Give heap that was freed back to the system, where the C library can: copies made while packing leave holes."""
    release = _function("malloc_trim")
    if release is not None:
        release(0)


@functools.cache
def keep_freed_memory() -> None:
    """Let freed memory up to 64 MB stay with the process, once; a user's own settings in the environment stay."""
    setting = _function("mallopt")
    if setting is not None and not any(name in os.environ for name in _SETTINGS):
        setting(_MMAP_THRESHOLD, _MAPPED)
        setting(_TRIM_THRESHOLD, _KEPT)


def untouched_zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """Zeros of a shape, in the dtype and on the device of `like`, whose pages take memory once they are written to.

    `torch.zeros` writes them all: of a large block of which little is used, it takes seconds and all the memory.
    """
    size = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or size < _LARGE:
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    if sys.platform.startswith("linux"):  # without a reservation: what is never used need not be there
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    else:
        pages = mmap.mmap(-1, size)
    return torch.frombuffer(pages, dtype=like.dtype).view(*shape)


class _Chunk(mmap.mmap):
    """Memory from which weights are cut; it goes back to the system with the last of them."""

    def __init__(self, *args: int) -> None:  # mmap itself has read them
        # older systems begin it anywhere
        self.used = -ctypes.addressof(ctypes.c_char.from_buffer(self)) % _HUGE
        self.madvise(mmap.MADV_HUGEPAGE)

    def cut(self, size: int) -> Tensor | None:
        """The next `size` bytes, or None where fewer are left."""
        start, self.used = self.used, self.used + -(-size // 64) * 64
        return None if self.used > len(self) else torch.frombuffer(self, dtype=torch.uint8, count=size, offset=start)


_lock = ForkLock()
_current: Callable[[], _Chunk | None] = lambda: None  # noqa: E731  a weak reference: only weights keep a chunk


def weight_memory(size: int) -> Tensor:
    """[size] uint8 for what is read at every step, in huge pages where the system gives them on request.

    One row times a matrix is as fast as its memory comes: in pages of 4 KB, the processor looks up each and fetches
    nothing ahead beyond it; in pages of 2 MB, a third to a half of the time is left. Weights lie side by side in them,
    since one alone would leave the last page half empty.
    """
    global _current
    if size < _LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    with _lock:
        chunk = _current()
        weight = None if chunk is None else chunk.cut(size)
        if weight is not None:
            return weight
        try:
            chunk = _Chunk(-1, max(size, _CHUNK) + _HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:  # no such pages here, or no such length
            return torch.empty(size, dtype=torch.uint8)
        weight = chunk.cut(size)
        assert weight is not None
        if size <= _CHUNK // 2:  # else little is left of it
            _current = weakref.ref(chunk)
        return weight


_CONTAINER = Path("/sys/fs/cgroup")
# a container's bound, what it uses, and what of that are files, by the second and the first version of control groups
_CONTAINER_FILES = (
    ("", ("memory.max", "memory.current"), "file"),
    ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_cache"),
)


def available_memory() -> int:
    """Bytes that the system, and a container's bound, let programs still have; without end where neither says so."""
    free = _counts(Path("/proc/meminfo")).get("MemAvailable:", sys.maxsize >> 10) << 10
    for folder, names, file in _CONTAINER_FILES:
        try:
            bound, used = ((_CONTAINER / folder / name).read_text().strip() for name in names)
        except OSError:
            continue
        if bound.isdigit():  # or it is "max"
            # files are counted as used, and given up when others ask
            cached = _counts(_CONTAINER / folder / "memory.stat").get(file, 0)
            free = min(free, int(bound) - int(used) + cached)
    return free


def _counts(path: Path) -> dict[str, int]:
    """A file of lines of a name and a number; empty where it is not there."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return {name: int(number) for name, number, *_ in map(str.split, lines)}


def unmap_pages(mapped: Tensor) -> None:
    """Take the whole pages of a contiguous part of a mapped file, never written to, out of this process's memory.

    They stay in the system's cache of the file, and come back when somebody reads them.
    """
    if not sys.platform.startswith("linux"):
        return
    start = -(-mapped.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (mapped.data_ptr() + mapped.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


_PAGE_OUT = 21  # MADV_PAGEOUT (Linux 5.4): reclaim now; a page is read from the file again if somebody asks for it


def mark_mapped(weight: Tensor) -> None:
    """Note that `weight` is a view of a mapped file."""
    weight.mapped = True  # type: ignore[attr-defined]


def evict(weight: Tensor) -> None:
    """Give the pages of a mapped weight but the first back to the system; its values stay what they are."""
    if not getattr(weight, "mapped", False) or not sys.platform.startswith("linux"):
        return
    # beyond the first page of it, in which `noticing` goes on to look
    start = (-(-weight.data_ptr() // mmap.PAGESIZE) + 1) * mmap.PAGESIZE
    # a part of a published matrix (GPT-2's c_attn) lies between the rows of the other parts
    extent = 1 + sum((n - 1) * step for n, step in zip(weight.shape, weight.stride(), strict=True))
    length = (weight.data_ptr() + extent * weight.element_size() - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _PAGE_OUT)
