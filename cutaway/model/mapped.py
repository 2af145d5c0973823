"""Weights that are pages of a file: once packed, their pages need not stay in memory."""

from __future__ import annotations

import ctypes
import mmap
import sys

from torch import Tensor

_PAGE_OUT = 21  # MADV_PAGEOUT (Linux 5.4): reclaim now; a page is read from the file again if somebody asks for it


def mark(weight: Tensor) -> None:
    """Note that `weight` is a view of a mapped file."""
    weight.mapped = True  # type: ignore[attr-defined]


def let_go(weight: Tensor) -> None:
    """Give the pages of a mapped weight back to the system; its values stay what they are."""
    if not getattr(weight, "mapped", False) or not sys.platform.startswith("linux"):
        return
    start = -(-weight.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    # a part of a published matrix (GPT-2's c_attn) lies between the rows of the other parts
    extent = 1 + sum((n - 1) * step for n, step in zip(weight.shape, weight.stride(), strict=True))
    length = (weight.data_ptr() + extent * weight.element_size() - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _PAGE_OUT)
