"""The C library's heap: what is given back to the system, and what is kept for the next layer."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers of these settings
# glibc raises both by itself, up to these, when it sees large blocks come and go; but a step too late and a little too
# low for tensors of one size, so that each layer's results would be new pages, which the system must find and clear
_MAPPED, _KEPT = 32 << 20, 64 << 20
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def _function(name: str) -> Any:
    """A function of the C library, or None where it has none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


def trim() -> None:
    """Give heap that was freed back to the system, where the C library can: copies made while packing leave holes."""
    release = _function("malloc_trim")
    if release is not None:
        release(0)


@functools.cache
def hold() -> None:
    """Let freed memory up to 64 MB stay with the process, once; a user's own settings in the environment stay."""
    setting = _function("mallopt")
    if setting is not None and not any(name in os.environ for name in _SETTINGS):
        setting(_MMAP_THRESHOLD, _MAPPED)
        setting(_TRIM_THRESHOLD, _KEPT)
