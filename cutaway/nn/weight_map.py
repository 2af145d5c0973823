"""Our names <-> published names of weights: one table per family, read in both directions.

A table maps layers, with `{i}` for the number of a block: `"blocks.{i}.attn.q": "layers.{i}.self_attn.q_proj"`. Three
operations are known: `transposed`, `split` (our layer is one part of a published one, maybe one that comes again for
every head), and tied weights, which are published once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cutaway.checkpoint.gguf_blocks import StoredBlocks
from cutaway.nn.lora import Adapters


@dataclass(frozen=True)
class WeightSource:
    """Where one of our layers is published: one part of the outputs of `name`, maybe stored [in, out].

    shares: the sizes of all parts, in any unit. groups: how often the row of parts comes again (GPT-NeoX: per head).
    also: a second published name of a tied layer, under which an untied copy is stored.
    """

    name: str
    transpose: bool = False
    part: int = 0
    shares: tuple[int, ...] = (1,)
    groups: int = 1
    also: str = ""

    @property
    def n_parts(self) -> int:
        """How many layers of ours are one published layer."""
        return len(self.shares)

    def under(self, prefix: str, leaf: str) -> WeightSource:
        """The same for one tensor of the layer: "weight" or "bias"."""
        also = f"{prefix}{self.also}.{leaf}" if self.also else ""
        return replace(self, name=f"{prefix}{self.name}.{leaf}", also=also)

    def from_blocks(self, stored: StoredBlocks) -> StoredBlocks:
        """Our part of a matrix that lies in blocks with its outputs as rows, those of a part together."""
        unit = stored.n // sum(self.shares)
        return stored.part(unit * sum(self.shares[: self.part]), unit * self.shares[self.part])

    def from_published(self, published: Tensor) -> Tensor:
        """Our tensor, as a view of the published one where its rows lie together."""
        x = published.T if self.transpose and published.dim() == 2 else published
        if self.n_parts == 1:
            return x
        x = x.unflatten(0, (self.groups, -1))  # [groups, rows of a group, ...]
        unit = x.shape[1] // sum(self.shares)
        own: Tensor = x.split([unit * share for share in self.shares], 1)[self.part]
        return own.flatten(0, 1)

    def stored_shape(self, ours: Iterable[int]) -> list[int]:
        """The published shape of a tensor that has shape `ours` here."""
        shape = list(ours)
        if shape and self.n_parts > 1:
            shape[0] = shape[0] // self.shares[self.part] * sum(self.shares)
        if self.transpose and len(shape) == 2:
            shape.reverse()
        return shape

    def to_published(self, ours: list[Tensor]) -> Tensor:
        """The published tensor from all of its parts, in order."""
        x = self.gather(ours)
        return x.T if self.transpose and x.dim() == 2 else x

    def gather(self, ours: list[Tensor], dim: int = 0) -> Tensor:
        """The parts side by side along their outputs, which are dimension `dim`."""
        if len(ours) == 1:
            return ours[0]
        if self.groups == 1:
            return torch.cat(ours, dim)
        at = dim % ours[0].dim()
        return torch.cat([x.unflatten(at, (self.groups, -1)) for x in ours], at + 1).flatten(at, at + 1)


Table = Mapping[str, "str | WeightSource"]


def transposed(name: str) -> WeightSource:
    """Published as [in, out] (GPT-2's Conv1D)."""
    return WeightSource(name, transpose=True)


def split(name: str, part: int, of: int, *, transpose: bool = False) -> WeightSource:
    """Published as one layer of which ours is part `part` of `of` equal parts."""
    return WeightSource(name, transpose, part, (1,) * of)


def share(name: str, part: int, shares: tuple[int, ...], groups: int = 1) -> WeightSource:
    """Published as one layer, with parts of these sizes one after another, `groups` times."""
    return WeightSource(name, part=part, shares=shares, groups=groups)


def tied(name: str, also: str) -> WeightSource:
    """Published as `name`, which several layers of ours share; a copy of its own would be called `also`."""
    return WeightSource(name, also=also)


def expand(table: Table, n_layers: Mapping[str, int]) -> dict[str, WeightSource]:
    """The table with `{i}` written out.

    n_layers: number of blocks by prefix, {"": 12} for one stack, {"encoder.": 6, "decoder.": 6} for two.
    """
    expanded: dict[str, WeightSource] = {}
    for ours, theirs in table.items():
        source = theirs if isinstance(theirs, WeightSource) else WeightSource(theirs)
        if "{i}" not in ours:
            expanded[ours] = source
            continue
        n = next(count for prefix, count in n_layers.items() if ours.startswith(prefix + "blocks."))
        for i in range(n):
            expanded[ours.replace("{i}", str(i))] = replace(source, name=source.name.replace("{i}", str(i)))
    return expanded


def sources(model: nn.Module, ours: str = "", theirs: str = "") -> dict[str, WeightSource]:
    """{our name: where it is published} for every parameter and persistent buffer, tied ones included."""
    by_name: dict[str, WeightSource] = {}
    table = getattr(model, "layer_sources", None)
    if table is not None:
        for name in tensors_of(model):
            layer, _, leaf = name.rpartition(".")
            source: WeightSource = table[layer]
            by_name[ours + name] = source.under(theirs, leaf)
        return by_name
    for name in [*model._parameters, *(b for b in model._buffers if b not in model._non_persistent_buffers_set)]:
        if getattr(model, name) is not None:
            by_name[ours + name] = WeightSource(theirs + name)
    for name, child in model.named_children():
        if isinstance(child, Adapters):
            continue  # they are saved apart
        published = getattr(model, "published_children", {}).get(name, name)
        by_name |= sources(child, f"{ours}{name}.", f"{theirs}{published}." if published else theirs)
    return by_name


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
