"""A tree of numbers in one safetensors file: the large arrays packed, with their errors; the rest exact.

Tensors: an array NAME of few numbers as it is (F32). A large one packed (`inspect.page.packing`): NAME (U8), its
blocks one after the other, and `NAME.steps` (F32). Metadata: `cutaway.trace`, JSON with the `format`, the tree, and of
each packed array its shape, tile, error, and where each block ends. Sizes are checked before memory is taken, nothing
in it is executed, and no torch is needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cutaway.checkpoint.safetensors import MAX_HEADER, Entry, read_header
from cutaway.errors import CheckpointError, InputError
from cutaway.inspect.measures import Array
from cutaway.inspect.page.packing import Packed, pack
from cutaway.jsonfile import parse_json, write_aside

FORMAT = "cutaway.trace/1"
KEY = "cutaway.trace"
SMALL = 4096  # numbers that an array holds at most to be stored as it is
MIN_BYTES = 60_000  # bytes that a large array may take however few numbers it holds
BYTES = {"pattern": 0.45, "rollout": 0.45, "hidden": 0.55}  # for a number of an array; others: OTHERS
OTHERS = 1.0
MAX_NUMBERS = 1 << 28  # numbers of one array: a gigabyte
DEFLATED = 1040  # no byte of a deflated block stands for more bytes


def write(path: Path, tree: object, arrays: Mapping[str, Array], errors: Mapping[str, float]) -> dict[str, float]:
    """Write the file, whole or not at all; the largest error of each array that was packed.

    Args:
        tree: JSON in which arrays are named. errors: what arrays may already miss, of a trace that was read.
    """
    tensors: dict[str, Any] = {}
    packed: dict[str, Any] = {}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(
                f"{name} holds numbers that are not finite; a trace keeps finite ones. Is the model whole?"
            )
        if array.size > MAX_NUMBERS:
            raise InputError(
                f"{name} holds {array.size:,} numbers; a trace keeps {MAX_NUMBERS:,}. Take a shorter text."
            )
        if array.size <= SMALL or array.ndim < 2:
            tensors[name] = np.ascontiguousarray(array, np.float32)
            continue
        kind = next((kind for kind in BYTES if kind in name.split(".")), "")
        entry = pack(
            array, max(BYTES.get(kind, OTHERS) * array.size, MIN_BYTES), tile=2 if kind in ("pattern", "rollout") else 1
        )
        tensors[name] = np.frombuffer(b"".join(entry.blocks), np.uint8)
        tensors[f"{name}.steps"] = entry.steps
        packed[name] = {
            "shape": list(entry.shape),
            "tile": entry.tile,
            "signed": entry.signed,
            "error": entry.error + errors.get(name, 0.0),
            "ends": np.cumsum([len(block) for block in entry.blocks]).tolist(),
        }
    text = json.dumps({"format": FORMAT, "tree": tree, "packed": packed}, allow_nan=False, separators=(",", ":"))
    if len(text) > MAX_HEADER // 2:
        raise InputError(f"the trace's description takes {len(text):,} bytes, more than is read again: a shorter text.")
    write_aside(path, lambda aside: save_file(tensors, aside, metadata={KEY: text}))
    return {name: float(entry["error"]) for name, entry in packed.items()}


def read(path: Path) -> tuple[Any, dict[str, Array], dict[str, float]]:
    """The tree, its arrays, and the errors of those that were packed; CheckpointError for a file that is no trace."""
    entries, metadata = read_header(path)
    if KEY not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file, but no trace of cutaway: it has no {KEY} in its metadata."
        )
    data = parse_json(metadata[KEY].encode("utf-8", "replace"), f"The description in {path}", CheckpointError,
                      max_bytes=MAX_HEADER)  # fmt: skip
    if data.get("format") != FORMAT or set(data) != {"format", "tree", "packed"}:
        file_format = str(data.get("format"))[:40]
        raise CheckpointError(f"{path} has the format {file_format!r}; this version of cutaway reads {FORMAT!r}.")
    try:
        descriptions = _object(data["packed"], "packed")
        plans = {name: _plan(name, entry, entries) for name, entry in descriptions.items()}
        known = set(plans) | {f"{name}.steps" for name in plans}
        arrays: dict[str, Array] = {}
        with safe_open(str(path), framework="np") as file:
            for name, entry in entries.items():
                if name not in known:
                    _check(
                        entry.dtype == "F32" and math.prod(entry.shape) <= MAX_NUMBERS,
                        f"{name[:80]!r} is no array of a trace",
                    )
                    arrays[name] = file.get_tensor(name)
            for name, plan in plans.items():
                raw, ends = file.get_tensor(name).tobytes(), plan["ends"]
                blocks = [raw[a:b] for a, b in pairwise([0, *ends])]
                steps = file.get_tensor(f"{name}.steps")
                arrays[name] = Packed(
                    plan["shape"], plan["tile"], steps, plan["signed"], plan["error"], blocks
                ).unpacked()
        for name, array in arrays.items():
            _check(bool(np.isfinite(array).all()), f"{name[:80]!r} holds numbers that are not finite")
    except (ValueError, SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is a damaged trace: {error}") from None
    return data["tree"], arrays, {name: plan["error"] for name, plan in plans.items()}


def _plan(name: str, entry: object, entries: Mapping[str, Entry]) -> dict[str, Any]:
    """What is said of a packed array, once it agrees with itself and with the bytes that are there."""
    plan = _object(entry, name)
    _check(set(plan) == {"shape", "tile", "signed", "error", "ends"}, f"{name[:80]!r} is not described in full")
    shape, tile, ends, error = plan["shape"], plan["tile"], plan["ends"], plan["error"]
    _check(
        _sizes(shape) and 2 <= len(shape) <= 6 and 0 < math.prod(shape) <= MAX_NUMBERS,
        f"{name[:80]!r} has a wrong shape",
    )
    _check(
        tile in (1, 2) and isinstance(tile, int) and isinstance(plan["signed"], bool), f"{name[:80]!r} has a wrong tile"
    )
    _check(isinstance(error, int | float) and 0 <= error < math.inf, f"{name[:80]!r} has a wrong error")
    matrices, numbers = math.prod(shape[:-2]), shape[-2] * shape[-1]
    steps, blocks = entries.get(f"{name}.steps"), entries.get(name)
    _check(blocks is not None and blocks.dtype == "U8" and len(blocks.shape) == 1, f"{name[:80]!r} has no blocks")
    tiles = math.prod(shape[: len(shape) - tile])
    _check(steps is not None and steps.dtype == "F32" and steps.shape == (tiles,), f"{name[:80]!r} has no steps")
    assert blocks is not None
    _check(_sizes(ends) and len(ends) == matrices and ends[-1] == blocks.shape[0], f"{name[:80]!r} has wrong blocks")
    for begin, end in pairwise([0, *ends]):
        _check(
            begin < end and numbers <= (end - begin) * DEFLATED, f"{name[:80]!r} says that it holds more than it can"
        )
    return {**plan, "shape": tuple(shape), "error": float(error)}


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name[:80]!r} is not an object")
    return dict(value)


def _sizes(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value)


def _check(holds: bool, why: str) -> None:
    if not holds:
        raise ValueError(why)
