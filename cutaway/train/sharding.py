"""Weights in parts, one for each rank: torch's FSDP2, and back to whole tensors.

Every block is a group of its own, which is whole only while it computes; everything else (embeddings, head, tied
weights) is one more. A checkpoint is written from the whole weights, so it is the file that one process would write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

from cutaway.errors import ConfigError
from cutaway.nn.engine_modules import engine_modules
from cutaway.nn.linear import Linear
from cutaway.nn.named_modules import engine_names

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard(model: nn.Module, device: torch.device) -> None:
    """Split every weight over the ranks; rank 0's weights count. A model that is split already stays as it is.

    Raises:
        ConfigError: the model has an adapter, whose files are written from whole weights.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if isinstance(model, FSDPModule):
        return
    if getattr(model, "active_adapter", None) is not None:
        raise ConfigError("fsdp does not go with an adapter: leave fsdp out, the adapter itself is small.")
    for tensor in [*model.parameters(), *model.buffers()]:
        dist.broadcast(tensor.detach(), 0)
    for _, layer in engine_modules(model):
        if isinstance(layer, Linear):
            layer.sharded = True
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    parts = [part for _, layers in engine_modules(model) if isinstance(layers, nn.ModuleList) for part in layers]
    for part in [*parts, model]:
        name = type(part).__name__
        with engine_names():  # torch asks each part for its modules, and leaves out those that are split already
            if any(True for _ in part.parameters()):
                fully_shard(part, mesh=mesh)
                type(part).__name__ = name  # what is saved says which class it is


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """{name: whole tensor, on the processor} on rank 0, {} elsewhere; all ranks call it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    with engine_names():
        return dict(get_model_state_dict(model, options=options))  # type: ignore[arg-type]


def whole(value: Any, keep: bool) -> Any:
    """Nested values with every sharded tensor put together; None instead, unless it is to `keep`. All ranks call it."""
    if isinstance(value, dict):
        return {k: whole(v, keep) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(whole(v, keep) for v in value)
    if not _split(value):
        return value
    found = value.full_tensor()
    return found.cpu() if keep else None


def like(place: Tensor, value: Tensor) -> Tensor:
    """This rank's part of a whole `value`, split as the tensor `place` is."""
    if not _split(place) or value.shape != place.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(place.device), place.device_mesh, place.placements, src_data_rank=None)


def entire(value: Tensor) -> Tensor:
    """A result that each rank has a part of, whole on every rank."""
    return value.full_tensor() if _split(value) else value


def _split(value: object) -> TypeGuard[DTensor]:
    if not isinstance(value, Tensor) or type(value) in (Tensor, nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)
