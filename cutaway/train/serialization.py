"""Nested values as JSON and tensors, and back to the same values: what a checkpoint holds instead of a pickle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import CheckpointError

_TAGS = ("~tensor", "~tuple", "~float", "~dict")


def pack(value: object, tensors: dict[str, Tensor], path: str) -> Any:
    """`value` as JSON; its tensors go into `tensors` under names that begin with `path`.

    What JSON cannot say is an object with one key: {"~tensor": name}, {"~tuple": [...]}, {"~float": "inf"}, {"~dict":
    [[key, value], ...]} for keys that are not text.

    Raises:
        CheckpointError: a value that is none of None, bool, int, float, str, list, tuple, dict or tensor.
    """
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().clone()
        return {"~tensor": path}
    if isinstance(value, float) and not math.isfinite(value):
        return {"~float": repr(float(value))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value if type(value) in (bool, int, float, str, type(None)) else _bare(value)
    if isinstance(value, tuple):
        return {"~tuple": [pack(v, tensors, f"{path}.{i}") for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [pack(v, tensors, f"{path}.{i}") for i, v in enumerate(value)]
    if isinstance(value, dict):
        if all(isinstance(k, str) and k not in _TAGS for k in value):
            return {k: pack(v, tensors, f"{path}.{k}") for k, v in value.items()}
        return {"~dict": [[pack(k, tensors, path), pack(v, tensors, f"{path}.{k}")] for k, v in value.items()]}
    if hasattr(value, "tolist"):  # a number or an array of NumPy
        return pack(value.tolist(), tensors, path)
    raise CheckpointError(
        f"{path} holds a {type(value).__name__}; a checkpoint can keep numbers, text, lists, dicts and tensors."
    )


def _bare(value: object) -> object:
    """A number or text of a derived class (NumPy's float64, an enumeration) as itself."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value.value if hasattr(value, "value") else value)
    return value


def unpack(value: object, tensors: dict[str, Tensor]) -> Any:
    """What `pack` was given; CheckpointError if a tensor is not there."""
    if isinstance(value, list):
        return [unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        tag, inside = next(iter(value.items()))
        if tag == "~tensor":
            if inside not in tensors:
                raise CheckpointError(f"The checkpoint's tensor {inside!r} is missing.")
            return tensors[inside]
        if tag == "~tuple":
            return tuple(unpack(v, tensors) for v in inside)
        if tag == "~float":
            return float(inside)
        if tag == "~dict":
            return {unpack(k, tensors): unpack(v, tensors) for k, v in inside}
    return {k: unpack(v, tensors) for k, v in value.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, in memory of its own."""
    from cutaway.checkpoint.safetensors import SafetensorsFile

    file = SafetensorsFile(path)
    try:
        return {name: file.read(name).clone() for name in file.names()}
    finally:
        file.close()


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file; empty files of tensors are allowed."""
    from safetensors.torch import save_file

    save_file({name: t.contiguous() for name, t in tensors.items()} or {"none": torch.zeros(1)}, path, {"format": "pt"})
