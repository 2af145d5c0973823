"""A model's weights under published names, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from cutaway.nn.weight_map import WeightSource, sources, tensors_of

if TYPE_CHECKING:
    from cutaway.models.configured import ConfiguredModel


def published_state(model: ConfiguredModel, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights under published names, each tied weight once."""
    where = sources(model)
    tensors = tensors_of(model)
    seen: set[int] = set()
    gathered: dict[str, list[tuple[int, WeightSource, Tensor]]] = {}
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
        out[name] = parts[0][1].to_published([value for _, _, value in parts]).contiguous()
    return out


def _apart(tensors: dict[str, Tensor], where: dict[str, WeightSource]) -> set[str]:
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
    ours_state: dict[str, Tensor] = {}
    for name, value in state.items():
        for ours in [name] if name in where else by_source.get(name, [name]):
            ours_state[ours] = value if ours == name else where[ours].from_published(value)
    return ours_state
