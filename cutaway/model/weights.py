"""Our names <-> published names of weights: one table per family, read in both directions.

A table maps layers, with `{i}` for the number of a block: `"blocks.{i}.attn.q": "layers.{i}.self_attn.q_proj"`. Three
operations are known: `transposed`, `split` (our layer is one part of a published one), and tied weights, which are
published once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Source:
    """Where one of our layers is published: part `part` of `of` along the outputs of `name`, maybe stored [in, out].

    also: a second published name of a tied layer, under which an untied copy is stored.
    """

    name: str
    transpose: bool = False
    part: int = 0
    of: int = 1
    also: str = ""

    def under(self, prefix: str, leaf: str) -> Source:
        """The same for one tensor of the layer: "weight" or "bias"."""
        also = f"{prefix}{self.also}.{leaf}" if self.also else ""
        return replace(self, name=f"{prefix}{self.name}.{leaf}", also=also)

    def take(self, published: Tensor) -> Tensor:
        """Our tensor, as a view of the published one."""
        x = published.T if self.transpose and published.dim() == 2 else published
        return x.chunk(self.of)[self.part] if self.of > 1 else x

    def stored_shape(self, ours: Iterable[int]) -> list[int]:
        """The published shape of a tensor that has shape `ours` here."""
        shape = list(ours)
        if shape and self.of > 1:
            shape[0] *= self.of
        if self.transpose and len(shape) == 2:
            shape.reverse()
        return shape

    def give(self, ours: list[Tensor]) -> Tensor:
        """The published tensor from all of its parts, in order."""
        x = torch.cat(ours) if len(ours) > 1 else ours[0]
        return x.T if self.transpose and x.dim() == 2 else x


Table = Mapping[str, "str | Source"]


def transposed(name: str) -> Source:
    """Published as [in, out] (GPT-2's Conv1D)."""
    return Source(name, transpose=True)


def split(name: str, part: int, of: int, *, transpose: bool = False) -> Source:
    """Published as one layer of which ours is part `part` of `of` equal parts."""
    return Source(name, transpose, part, of)


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
