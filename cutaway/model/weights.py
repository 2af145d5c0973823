"""Our names <-> published names of weights: one table per family, read in both directions.

A table maps layers, with `{i}` for the number of a block: `"blocks.{i}.attn.q": "layers.{i}.self_attn.q_proj"`. Three
operations are known: `transposed`, `split` (our layer is one part of a published one, maybe one that comes again for
every head), and tied weights, which are published once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Source:
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
    def of(self) -> int:
        """How many layers of ours are one published layer."""
        return len(self.shares)

    def under(self, prefix: str, leaf: str) -> Source:
        """The same for one tensor of the layer: "weight" or "bias"."""
        also = f"{prefix}{self.also}.{leaf}" if self.also else ""
        return replace(self, name=f"{prefix}{self.name}.{leaf}", also=also)

    def take(self, published: Tensor) -> Tensor:
        """Our tensor, as a view of the published one where its rows lie together."""
        x = published.T if self.transpose and published.dim() == 2 else published
        if self.of == 1:
            return x
        x = x.unflatten(0, (self.groups, -1))  # [groups, rows of a group, ...]
        unit = x.shape[1] // sum(self.shares)
        own: Tensor = x.split([unit * share for share in self.shares], 1)[self.part]
        return own.flatten(0, 1)

    def stored_shape(self, ours: Iterable[int]) -> list[int]:
        """The published shape of a tensor that has shape `ours` here."""
        shape = list(ours)
        if shape and self.of > 1:
            shape[0] = shape[0] // self.shares[self.part] * sum(self.shares)
        if self.transpose and len(shape) == 2:
            shape.reverse()
        return shape

    def give(self, ours: list[Tensor]) -> Tensor:
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


Table = Mapping[str, "str | Source"]


def transposed(name: str) -> Source:
    """Published as [in, out] (GPT-2's Conv1D)."""
    return Source(name, transpose=True)


def split(name: str, part: int, of: int, *, transpose: bool = False) -> Source:
    """Published as one layer of which ours is part `part` of `of` equal parts."""
    return Source(name, transpose, part, (1,) * of)


def share(name: str, part: int, shares: tuple[int, ...], groups: int = 1) -> Source:
    """Published as one layer, with parts of these sizes one after another, `groups` times."""
    return Source(name, part=part, shares=shares, groups=groups)


def tied(name: str, also: str) -> Source:
    """Published as `name`, which several layers of ours share; a copy of its own would be called `also`."""
    return Source(name, also=also)


def expand(table: Table, n_layers: Mapping[str, int]) -> dict[str, Source]:
    """The table with `{i}` written out.

    n_layers: number of blocks by prefix, {"": 12} for one stack, {"encoder.": 6, "decoder.": 6} for two.
    """
    found: dict[str, Source] = {}
    for ours, theirs in table.items():
        source = theirs if isinstance(theirs, Source) else Source(theirs)
        if "{i}" not in ours:
            found[ours] = source
            continue
        n = next(count for prefix, count in n_layers.items() if ours.startswith(prefix + "blocks."))
        for i in range(n):
            found[ours.replace("{i}", str(i))] = replace(source, name=source.name.replace("{i}", str(i)))
    return found
