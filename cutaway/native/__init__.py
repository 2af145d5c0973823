"""Kernels in C that are compiled when the package is installed, where a compiler is there.

They are plain functions in a shared library, reached through ctypes: no torch headers, no Python interface, so a build
takes seconds and serves every version of both. Nothing depends on them: where they were not built, or the chip lacks
their instructions, `LIBRARY` is None and the caller computes the same through torch.
"""

from __future__ import annotations

import ctypes
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

_ADDRESS, _SIZE, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
VERSION = 4  # as in tile.h: a library that was built from older sources is left alone
# kinds of packed weights
FLOATS, HALVES, BYTES = range(3)


class Weight(ctypes.Structure):
    """`Weight` of linear.c: addresses of tensors that the caller keeps."""

    _fields_ = (
        ("packed", _ADDRESS),
        ("bias", _ADDRESS),
        ("col_scale", _ADDRESS),
        ("shift", _ADDRESS),
        ("n", _SIZE),
        ("k", _SIZE),
        ("kind", _NUMBER),
        ("gated", _NUMBER),
    )


class Attention(ctypes.Structure):
    """`Attention` of attention.c."""

    _fields_ = (
        *((name, _ADDRESS) for name in ("q", "k", "v", "out")),
        *((name, _SIZE) for name in ("q_row", "k_row", "v_row", "out_row")),
        *((name, _ADDRESS) for name in ("starts", "lengths")),
        *((name, _SIZE) for name in ("texts", "heads", "kv_heads", "size", "window")),
        ("scale", ctypes.c_float),
        ("causal", _NUMBER),
        ("bf16", _NUMBER),
    )


class Step(ctypes.Structure):
    """`Step` of step.c."""

    _fields_ = (
        *((name, _ADDRESS) for name in ("q", "keys", "values", "out", "firsts")),
        *((name, _SIZE) for name in ("q_row", "text", "head", "texts", "n", "heads", "kv_heads", "size", "columns")),
        ("window", _SIZE),
        ("scale", ctypes.c_float),
        ("bf16", _NUMBER),
    )


def _opened(path: str) -> ctypes.CDLL | None:
    """The library at `path`: it takes its threads from the OpenMP that torch has loaded, or from the system's."""
    for needed in (None, "libgomp.so.1"):
        try:
            if needed is not None:
                ctypes.CDLL(needed, mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(path)
        except OSError:  # built for another system, or nobody offers OpenMP
            continue
    return None


def _load() -> ctypes.CDLL | None:
    """The library, if it was built and this processor can run it."""
    folder = Path(__file__).parent
    path = next((p for ending in EXTENSION_SUFFIXES if (p := folder / f"kernels{ending}").is_file()), None)
    library = None if path is None else _opened(str(path))
    if library is None or getattr(library, "cw_version", int)() != VERSION or not library.cw_supported():
        return None
    library.cw_pack.argtypes = (_ADDRESS, _SIZE, _SIZE, _NUMBER, _ADDRESS, _ADDRESS)
    library.cw_pack.restype = None
    library.cw_linear.argtypes = (_ADDRESS, _ADDRESS, _SIZE, _SIZE, _NUMBER, _ADDRESS, _ADDRESS, _NUMBER, _NUMBER)
    library.cw_chain.argtypes = (_ADDRESS, *library.cw_linear.argtypes)
    library.cw_attention.argtypes = library.cw_step.argtypes = (_ADDRESS, _NUMBER)
    shape, number = (_ADDRESS, _SIZE, _SIZE, _SIZE), ctypes.c_float
    library.cw_norm.argtypes = (*shape, _ADDRESS, _ADDRESS, number, number, _NUMBER, _ADDRESS, _NUMBER, _NUMBER)
    library.cw_turn.argtypes = (*shape, _SIZE, _SIZE, _ADDRESS, _ADDRESS, _ADDRESS, _NUMBER, _NUMBER)
    library.cw_norm.restype = library.cw_turn.restype = None
    return library


LIBRARY = _load()
# whether the processor multiplies bfloat16 as the kernels do
BF16 = LIBRARY is not None and bool(LIBRARY.cw_bf16_supported())
