"""A model's weights under published names, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from cutaway.nn.named_modules import to_engine_names
from cutaway.nn.weight_map import WeightSource, sources, tensors_of

if TYPE_CHECKING:
    from cutaway.models.configured import ConfiguredModel


def published_state(model: ConfiguredModel, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights under published names, each tied weight once; `state`: others in their place, by any names."""
    if state is not None:
        state = dict(state)
        to_engine_names(model, state, "")
    where = sources(model)
    tensors = tensors_of(model)
    if state is not None:  # a tied weight may stand there under any of its names
        first = {id(tensor): name for name, tensor in tensors.items() if name in state}
        state |= {name: state[first[id(t)]] for name, t in tensors.items() if name not in state and id(t) in first}
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
