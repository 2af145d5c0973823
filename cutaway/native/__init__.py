"""Kernels in C that are compiled when the package is installed, where a compiler is there.

They are plain functions in a shared library, reached through ctypes: no torch headers, no Python interface, so a build
takes a second and serves every version of both. Nothing depends on them: where they were not built, or the chip lacks
their instructions, `LIBRARY` is None and the caller computes the same through torch.
"""

from __future__ import annotations

import ctypes
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


class Weight(ctypes.Structure):
    """`Weight` of kernels.c: addresses of tensors that the caller keeps."""

    _fields_ = (
        ("packed", ctypes.c_void_p),
        ("col_scale", ctypes.c_void_p),
        ("shift", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
    )


def _load() -> ctypes.CDLL | None:
    """The library, if it was built and this processor can run it."""
    folder = Path(__file__).parent
    path = next((p for ending in EXTENSION_SUFFIXES if (p := folder / f"kernels{ending}").is_file()), None)
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError:  # built for another system
        return None
    if not library.cw_supported():
        return None
    address, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.cw_pack.argtypes = (address, size, size, address, address)
    library.cw_pack.restype = None
    library.cw_linear.argtypes = (address, address, size, size, number, address, address, number, number)
    return library


LIBRARY = _load()
