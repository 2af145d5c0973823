"""The C library's heap: what is given back to the system, and what is kept for the next layer."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
from typing import Any

from torch import Tensor

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers of these settings
# glibc raises both by itself, up to these, when it sees large blocks come and go; but a step too late and a little too
# low for tensors of one size, so that each layer's results would be new pages, which the system must find and clear
_MAPPED, _KEPT = 32 << 20, 64 << 20
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
