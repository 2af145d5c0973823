"""The weights of any module, to a folder and back in place."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from cutaway.adapters.mixin import Adaptable, base_trains
from cutaway.adapters.peft_files import CONFIG
from cutaway.checkpoint.checkpoint import open_checkpoint, save_checkpoint
from cutaway.errors import CheckpointError
from cutaway.hub.files import resolve
from cutaway.nn.lora import layer_name
from cutaway.train.sharding import like


@runtime_checkable
class SavesItself(Protocol):
    """A model that writes its own files: one of this library, or of another."""

    def save_pretrained(self, save_directory: Path, **options: object) -> object: ...


def save_weights(model: nn.Module, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """As the model saves itself; for a plain module, model.safetensors with its own names, tied weights once.

    Where only an adapter learns, the adapter alone. `weights`: {name: tensor} where the model itself holds only parts.
    """
    if isinstance(model, Adaptable) and model.active_adapter is not None:
        model.save_adapter(folder)
        if not base_trains(model):
            return
    if isinstance(model, SavesItself):
        model.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))
        return
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = (tensor if weights is None else weights[name]).detach()
    save_checkpoint(folder, tensors)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights of `folder` into the model, whose parameters stay the same objects.

    Raises:
        CheckpointError: a weight is missing there, or is none of this model's.
    """
    if (folder / CONFIG).is_file():
        if not isinstance(model, Adaptable) or model.active_adapter is None:
            raise CheckpointError(f"{folder} holds an adapter; give the model one like it with add_adapter.")
        model.restore_adapter(folder)
        if not base_trains(model):
            return
    with open_checkpoint(resolve(str(folder))) as checkpoint:
        tensors = {name: checkpoint.read(name) for name in checkpoint.names()}
    own = model.state_dict(keep_vars=True)
    placed = {name: like(own[name], value) if name in own else value for name, value in tensors.items()}
    report = model.load_state_dict(placed, strict=False)
    own = {name: tensor for name, tensor in own.items() if layer_name(model, name) == name}  # adapters are kept apart
    filled = {id(tensor) for name, tensor in own.items() if name not in report.missing_keys}
    absent = [name for name in report.missing_keys if name in own and id(own[name]) not in filled]
    if absent or report.unexpected_keys:
        names = ", ".join(repr(n) for n in [*absent, *report.unexpected_keys][:5])
        raise CheckpointError(f"{folder} does not fit {type(model).__name__}: {names}. Resume with the same model.")
