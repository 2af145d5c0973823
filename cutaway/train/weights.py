"""The weights of any module, to a folder and back in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from cutaway.checkpoint import open_checkpoint, save_checkpoint
from cutaway.errors import CheckpointError
from cutaway.hub import resolve


def save_weights(model: Any, folder: Path) -> None:
    """As the model saves itself; for a plain module, model.safetensors with its own names, tied weights once."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        return
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    save_checkpoint(folder, tensors)


def load_weights(model: Any, folder: Path) -> None:
    """Copy the weights of `folder` into the model, whose parameters stay the same objects.

    Raises:
        CheckpointError: a weight is missing there, or is none of this model's.
    """
    with open_checkpoint(resolve(str(folder))) as checkpoint:
        tensors = {name: checkpoint.read(name) for name in checkpoint.names()}
    report = model.load_state_dict(tensors, strict=False)
    own = model.state_dict(keep_vars=True)
    filled = {id(tensor) for name, tensor in own.items() if name not in report.missing_keys}
    absent = [name for name in report.missing_keys if id(own.get(name)) not in filled]
    if absent or report.unexpected_keys:
        names = ", ".join(repr(n) for n in [*absent, *report.unexpected_keys][:5])
        raise CheckpointError(f"{folder} does not fit {type(model).__name__}: {names}. Resume with the same model.")
