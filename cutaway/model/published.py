"""A model's weights under published names, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from cutaway.model.adapter import Adapters
from cutaway.model.weights import Source

if TYPE_CHECKING:
    from cutaway.model.pretrained import PreTrainedModel


def sources(model: nn.Module, ours: str = "", theirs: str = "") -> dict[str, Source]:
    """{our name: where it is published} for every parameter and persistent buffer, tied ones included."""
    found: dict[str, Source] = {}
    table = getattr(model, "layer_sources", None)
    if table is not None:
        for name in tensors_of(model):
            layer, _, leaf = name.rpartition(".")
            source: Source = table[layer]
            found[ours + name] = source.under(theirs, leaf)
        return found
    for name in [*model._parameters, *(b for b in model._buffers if b not in model._non_persistent_buffers_set)]:
        if getattr(model, name) is not None:
            found[ours + name] = Source(theirs + name)
    for name, child in model.named_children():
        if isinstance(child, Adapters):
            continue  # they are saved apart
        published = getattr(model, "published_children", {}).get(name, name)
        found |= sources(child, f"{ours}{name}.", f"{theirs}{published}." if published else theirs)
    return found


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and persistent buffer by our name, adapters left out; a tied one stands under each name."""
    apart = {id(p) for module in model.modules() if isinstance(module, Adapters) for p in module.parameters()}
    every = model.named_parameters(remove_duplicate=False)
    found: dict[str, Tensor] = {name: p for name, p in every if id(p) not in apart}
    for prefix, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                found[f"{prefix}.{name}" if prefix else name] = buffer
    return found


def published_state(model: PreTrainedModel, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights under published names, each tied weight once."""
    where = sources(model)
    tensors = tensors_of(model)
    seen: set[int] = set()
    gathered: dict[str, list[tuple[int, Source, Tensor]]] = {}
    apart = _apart(tensors, where)
    for name, tensor in tensors.items():
        source = where[name]
        if id(tensor) in seen and source.name not in apart:
            continue
        seen.add(id(tensor))
        value = tensor if state is None else state[name]
        if source.name in apart:
            gathered[source.also] = [(0, source, value.detach())]
            gathered.setdefault(source.name, [(0, source, value.detach())])
        else:
            gathered.setdefault(source.name, []).append((source.part, source, value.detach()))
    out: dict[str, Tensor] = {}
    for name, parts in gathered.items():
        parts.sort(key=lambda entry: entry[0])
        out[name] = parts[0][1].give([value for _, _, value in parts]).contiguous()
    return out


def _apart(tensors: dict[str, Tensor], where: dict[str, Source]) -> set[str]:
    """Published names that tied layers would share, but do not in this model."""
    held: dict[str, set[int]] = {}
    for name, tensor in tensors.items():
        if where[name].also:
            held.setdefault(where[name].name, set()).add(id(tensor))
    return {name for name, found in held.items() if len(found) > 1}


def engine_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which published names and ours may be mixed -> one under our names.

    Names that are neither stay as they are, so that a strict load can report them.
    """
    where = sources(model)
    if all(name in where for name in state):
        return dict(state)
    by_source: dict[str, list[str]] = {}
    for ours, source in where.items():
        for theirs in (source.name, source.also):
            by_source.setdefault(theirs, []).append(ours)
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        for ours in [name] if name in where else by_source.get(name, [name]):
            found[ours] = value if ours == name else where[ours].take(value)
    return found
