"""Kernels in C that are compiled when the package is installed, where a compiler is there.

They are plain functions in a shared library, reached through ctypes: no torch headers, no Python interface, so a build
takes seconds and serves every version of both. The same sources are compiled once for AVX-512 and once for AVX2, each
into a library of its own; the best that the processor can run is taken when this module is imported. Nothing depends
on them: where they were not built, or the processor lacks their instructions, `LIBRARY` is None and the caller computes
the same through torch.

CUTAWAY_CPU=avx512, avx2 or plain (none) in the environment takes that one instead, to compare them or to test.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

from cutaway.errors import ConfigError

_ADDRESS, _SIZE, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
# kinds of weights: FP32, BF16, INT8 and BLOCKS of tile.h
FP32_WEIGHT, BF16_WEIGHT, INT8_WEIGHT, BLOCKS_WEIGHT = range(4)
MOST_PARTS = 4
LAID_OUT = 64  # added to a type of ggml's, of `Part`, where its blocks are in the order of the tiles
INT8_TILES = 256  # of `Part`, where it is no type of ggml's: TILES_8 of blocks.h
# activations (`Activation` of config/architecture.py) by their numbers in the enum of vector.h; one that is not here is
# computed by torch
ACTIVATION_NUMBERS: dict[str | None, int] = {
    None: 0,
    "gelu": 1,
    "gelu_tanh": 2,
    "gelu_quick": 3,
    "relu": 4,
    "silu": 5,
    "tanh": 6,
}


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


class Part(ctypes.Structure):
    """`Part` of blocks.h: rows of a matrix in a file of blocks."""

    _fields_ = (("data", _ADDRESS), ("n", _SIZE), ("row", _SIZE), ("half", _SIZE), ("type", _SIZE))


class Blocks(ctypes.Structure):
    """`Blocks` of blocks.h: what `packed` of a weight of kind BLOCKS_WEIGHT points to."""

    _fields_ = (("parts", _SIZE), ("bytes", _SIZE), ("part", Part * MOST_PARTS))


class Op(ctypes.Structure):
    """What a kernel is asked to do, laid out as in op.h and the kernel's own file. Nothing it points to is kept."""

    NUMBER = -1
    kept: tuple[Any, ...] = ()  # what holds the memory that it points to, where nothing else does

    def __init__(self, rows: int, *values: object) -> None:
        super().__init__(self.NUMBER, rows, *values)


_HEAD = (("kind", _SIZE), ("rows", _SIZE))


class Product(Op):
    """Rows times a weight."""

    NUMBER = 0
    _fields_ = (
        *_HEAD,
        *((name, _ADDRESS) for name in ("weight", "down", "x", "residual", "out", "norm")),
        ("stride", _SIZE),
        ("activation", _NUMBER),
        ("bf16", _NUMBER),
    )


class Chain(Product):
    """Rows times a weight, then what becomes of them times another."""

    NUMBER = 1


class Norm(Op):
    """Rows normed."""

    NUMBER = 2
    _fields_ = (
        *_HEAD,
        *((name, _ADDRESS) for name in ("x", "weight", "bias", "out")),
        *((name, _SIZE) for name in ("n", "heads", "stride")),
        ("eps", ctypes.c_float),
        ("offset", ctypes.c_float),
        ("norm", _NUMBER),
        ("bf16", _NUMBER),
    )


class Rope(Op):
    """Heads rotated by their positions."""

    NUMBER = 3
    _fields_ = (
        *_HEAD,
        *((name, _ADDRESS) for name in ("x", "cos", "sin", "out")),
        *((name, _SIZE) for name in ("stride", "heads", "size", "rotated")),
        ("bf16", _NUMBER),
    )


class Attention(Op):
    """Attention inside texts."""

    NUMBER = 4
    _fields_ = (
        *_HEAD,
        *((name, _ADDRESS) for name in ("q", "k", "v", "out")),
        *((name, _SIZE) for name in ("q_row", "k_row", "v_row", "out_row", "k_head", "v_head")),
        *((name, _ADDRESS) for name in ("starts", "lengths", "key_starts", "before")),
        *((name, _SIZE) for name in ("texts", "heads", "kv_heads", "size", "window")),
        ("scale", ctypes.c_float),
        ("causal", _NUMBER),
        ("bf16", _NUMBER),
    )


class Put(Op):
    """New tokens' keys and values into a cache."""

    NUMBER = 5
    _fields_ = (
        *_HEAD,
        *((name, _ADDRESS) for name in ("k", "v", "keys", "values", "columns")),
        *((name, _SIZE) for name in ("k_row", "v_row", "text", "head", "n", "kv_heads", "width")),
        ("bf16", _NUMBER),
    )


class Step(Op):
    """Attention of new tokens to a cache."""

    NUMBER = 6
    _fields_ = (
        *_HEAD,
        *((name, _ADDRESS) for name in ("q", "keys", "values", "out", "columns", "first_visible")),
        *((name, _ADDRESS) for name in ("end", "memory", "origin", "bias")),
        *((name, _SIZE) for name in ("text", "head", "q_row", "n", "heads", "kv_heads", "size", "window")),
        *((name, _SIZE) for name in ("origin_row", "bias_row")),
        ("scale", ctypes.c_float),
        ("bf16", _NUMBER),
    )


class Best(Op):
    """The likeliest tokens of rows of logits."""

    NUMBER = 7
    _fields_ = (
        *_HEAD,
        *((name, _ADDRESS) for name in ("x", "values", "most", "sum", "spread", "ids")),
        *((name, _SIZE) for name in ("columns", "n")),
    )


# as `cw_sizes` of play.c counts them
STRUCTURES = (Product, Chain, Norm, Rope, Attention, Put, Step, Best, Weight, Blocks)


def _opened(path: Path) -> ctypes.CDLL:
    """The library at `path`: it takes its threads from the OpenMP that torch has loaded, or from the system's.

    OSError where it was built for another system, or nobody offers OpenMP.
    """
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        try:
            ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
        except OSError:
            raise error from None
        return ctypes.CDLL(str(path))


def _agrees(library: ctypes.CDLL) -> bool:
    """Whether the library is of these sources: its structures are as large, and it knows as many activations.

    Another would read other things, and leave out an activation whose number it does not know.
    """
    count, activations = getattr(library, "cw_sizes", None), getattr(library, "cw_activations", None)
    if count is None or activations is None:
        return False
    activations.argtypes, activations.restype = (), _SIZE
    if activations() != len(ACTIVATION_NUMBERS):
        return False
    count.argtypes, count.restype = (_ADDRESS, _SIZE), _SIZE
    sizes = (_SIZE * len(STRUCTURES))()
    wanted = [ctypes.sizeof(structure) for structure in STRUCTURES]
    return bool(count(sizes, len(STRUCTURES)) == len(STRUCTURES)) and list(sizes) == wanted


class Instructions(NamedTuple):
    """A set of the processor's instructions, and the library that was compiled for it."""

    file: str
    label: str


# the best first
INSTRUCTIONS = {
    "avx512": Instructions("kernels.so", "AVX-512 with VNNI"),
    "avx2": Instructions("kernels_avx2.so", "AVX2 with FMA"),
}
PLAIN = "plain"


def load(path: Path, label: str = INSTRUCTIONS["avx512"].label) -> tuple[ctypes.CDLL | None, str]:
    """The kernels in the library at `path`, if they are of these sources and this processor can run them.

    Else the reason why not stands beside None. label: the instructions that they need.
    """
    if not path.is_file():
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            return None, "they are for Linux on x86-64"
        return None, "not built: there was no C compiler when cutaway was installed"
    try:
        library = _opened(path)
    except OSError as error:
        return None, f"{path.name} cannot be opened: {error}"
    if not _agrees(library):
        again = "build it again (python setup.py build_ext --inplace), or install cutaway again"
        return None, f"{path.name} was built from other sources; {again}"
    if not library.cw_supported():
        return None, f"this processor has no {label}"
    library.cw_pack.argtypes = (_ADDRESS, _SIZE, _SIZE, _NUMBER, _ADDRESS, _ADDRESS)
    library.cw_pack.restype = None
    library.cw_block_rows.argtypes = (_ADDRESS, _ADDRESS, _SIZE, _SIZE, _ADDRESS, _NUMBER)
    library.cw_laid_out_bytes.argtypes, library.cw_laid_out_bytes.restype = (_SIZE, _SIZE), _SIZE
    library.cw_lay_out.argtypes, library.cw_lay_out.restype = (_ADDRESS, _SIZE, _ADDRESS, _NUMBER), None
    library.cw_run.argtypes = (_ADDRESS, _NUMBER)
    library.cw_replay.argtypes = (_ADDRESS, _SIZE, _NUMBER)
    return library, ""


class Choice(NamedTuple):
    """The kernels that run: their library and the name of their instructions, or None and `plain`.

    why: the reason that the better ones do not; empty for the best.
    """

    library: ctypes.CDLL | None
    name: str
    why: str


def choose(wanted: str | None, folder: Path = Path(__file__).parent) -> Choice:
    """The kernels in `folder` that `wanted`, the value of CUTAWAY_CPU, names; the best that run here if it is empty.

    Raises ConfigError for another name, and for kernels that cannot run here.
    """
    if not wanted:
        reasons: list[str] = []
        for name, (file, label) in INSTRUCTIONS.items():
            library, reason = load(folder / file, label)
            if library is not None:
                return Choice(library, name, "; ".join(reasons))
            if reason not in reasons:
                reasons.append(reason)
        return Choice(None, PLAIN, "; ".join(reasons))
    if wanted == PLAIN:
        return Choice(None, PLAIN, "as CUTAWAY_CPU asks")
    if wanted not in INSTRUCTIONS:
        known = ", ".join((*INSTRUCTIONS, PLAIN))
        raise ConfigError(
            f"CUTAWAY_CPU is {wanted!r}; it can be {known}, or unset, which takes the best that runs here."
        )
    file, label = INSTRUCTIONS[wanted]
    library, reason = load(folder / file, label)
    if library is None:
        raise ConfigError(f"CUTAWAY_CPU is {wanted!r}, whose kernels cannot run: {reason}. Unset, it takes the best.")
    return Choice(library, wanted, "as CUTAWAY_CPU asks")


LIBRARY, NAME, MISSING = choose(os.environ.get("CUTAWAY_CPU"))
# whether the kernels multiply bfloat16
BF16 = LIBRARY is not None and bool(LIBRARY.cw_bf16_supported())


def description() -> str:
    """Which instructions the kernels use here, and why not better ones; or why torch computes in their place."""
    if LIBRARY is None:
        return f"none ({MISSING}); torch computes the same"
    label = INSTRUCTIONS[NAME].label
    if NAME == "avx512":
        label += " and bfloat16" if BF16 else ""
    elif LIBRARY.cw_vnni_used():
        label += " and VNNI"
    return f"{label} ({MISSING})" if MISSING else label
