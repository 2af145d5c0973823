"""Our names <-> published names of weights: one table per family, read in both directions.

A table maps layers, with `{i}` for the number of a block: `"blocks.{i}.attn.q": "layers.{i}.self_attn.q_proj"`, or with
`{i//2}` and `{i%2}` where two blocks stand under each published number. Three
operations are known: `transposed`, `split` (our layer is one part of a published one, maybe one that comes again for
every head), and tied weights, which are published once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cutaway.checkpoint.gguf_blocks import StoredBlocks
from cutaway.nn.engine_modules import engine_modules
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
        return self.named(f"{prefix}{self.name}.{leaf}" if self.name else prefix + leaf, also)

    def named(self, name: str, also: str) -> WeightSource:
        """The same part of another published tensor (`dataclasses.replace` takes four times as long)."""
        return WeightSource(name, self.transpose, self.part, self.shares, self.groups, also)

    def from_blocks(self, stored: StoredBlocks) -> StoredBlocks:
        """Our part of a matrix that lies in blocks with its outputs as rows, those of a part together."""
        unit = stored.n // sum(self.shares)
        return stored.part(unit * sum(self.shares[: self.part]), unit * self.shares[self.part])

    def from_published(self, published: Tensor) -> Tensor:
        """Our tensor, as a view of the published one where its rows lie together."""
        return self.part_of(published.T if self.transpose and published.dim() == 2 else published, 0)

    def part_of(self, x: Tensor, dim: int) -> Tensor:
        """Our part of the outputs that lie along dimension `dim` of x."""
        if self.n_parts == 1:
            return x
        at = dim % x.dim()
        if self.groups == 1:
            unit = x.shape[at] // sum(self.shares)
            return x.narrow(at, unit * sum(self.shares[: self.part]), unit * self.shares[self.part])
        return self.window(x, at).flatten(at, at + 1)

    def window(self, x: Tensor, at: int = 0) -> Tensor:
        """Our part of the outputs along dimension `at`, a view: [..., groups, rows of a group, ...]."""
        x = x.unflatten(at, (self.groups, -1))  # [..., groups, rows of a group, ...]
        unit = x.shape[at + 1] // sum(self.shares)
        return x.narrow(at + 1, unit * sum(self.shares[: self.part]), unit * self.shares[self.part])

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
            expanded[ours.replace("{i}", str(i))] = source.named(numbered(source.name, i), source.also)
    return expanded


def numbered(name: str, i: int) -> str:
    """A published name of block `i`: `{i}` is its number, `{i//2}` and `{i%2}` are parts of it."""
    if "{i}" in name and name.count("{") == 1:
        return name.replace("{i}", str(i))

    def number(found: re.Match[str]) -> str:
        parts = 1 if found[2] is None else int(found[2])
        return str(i % parts if found[1] == "%" else i // parts)

    return re.sub(r"\{i(?:(//|%)(\d+))?\}", number, name)


def sources(model: nn.Module, ours: str = "", theirs: str = "") -> dict[str, WeightSource]:
    """{the engine's name: where it is published} for every parameter and persistent buffer, tied ones included.

    A published layer that holds the parameters of several stands here as itself.
    """
    by_name: dict[str, WeightSource] = {}
    table: dict[str, WeightSource] | None = getattr(model, "layer_sources", None)
    if table is not None:
        modules = dict(engine_modules(model, remove_duplicate=False))
        known = table | _published_places(modules)
        for path, module in modules.items():
            if path.partition(".")[0] == "adapters":
                continue  # they are saved apart
            source = _source_of(path, known)
            for leaf in tensor_names(module):
                by_name[f"{ours}{path}.{leaf}" if path else ours + leaf] = source.under(theirs, leaf)
        return by_name
    for name in tensor_names(model):
        by_name[ours + name] = WeightSource(theirs + name)
    for name, child in model._modules.items():
        if child is None or isinstance(child, Adapters):
            continue  # adapters are saved apart
        published = getattr(model, "published_children", {}).get(name, name)
        by_name |= sources(child, f"{ours}{name}.", f"{theirs}{published}." if published else theirs)
    return by_name


def layer_sources(model: nn.Module) -> dict[str, WeightSource]:
    """{the engine's path of a layer, a part of a published one too: the published layer}, adapters left out."""
    by_path: dict[str, WeightSource] = {}

    def visit(module: nn.Module, ours: str, theirs: str) -> None:
        table: dict[str, WeightSource] | None = getattr(module, "layer_sources", None)
        if table is not None:
            for path, source in table.items():
                also = theirs + source.also if source.also else ""
                by_path[ours + path] = replace(source, name=theirs + source.name, also=also)
            return
        for name, child in module._modules.items():
            if child is None or isinstance(child, Adapters):
                continue
            published = getattr(module, "published_children", {}).get(name, name)
            if any(True for _ in tensor_names(child)):
                by_path[ours + name] = WeightSource(theirs + published)
            visit(child, f"{ours}{name}.", f"{theirs}{published}." if published else theirs)

    visit(model, "", "")
    return by_path


def _published_places(modules: Mapping[str, nn.Module]) -> dict[str, WeightSource]:
    """{the engine's path of what stands for a published layer: its source}, for layers that are parts of one."""
    found: dict[str, WeightSource] = {}
    for path, module in modules.items():
        part = getattr(module, "part", None)
        if part is not None:
            found[f"{path.rpartition('.')[0]}.{part.slot}"] = WeightSource(part.source.name)
    return found


def _source_of(path: str, known: Mapping[str, WeightSource]) -> WeightSource:
    """Where the weights of the module at `path` are published: by its layer, or by the layer that it is a piece of.

    What somebody added to the model has its own name.
    """
    layer, inside = path, ""
    while layer:
        if layer in known:
            source = known[layer]
            return replace(source, name=source.name + inside, also=source.also + inside if source.also else "")
        layer, _, last = layer.rpartition(".")
        inside = f".{last}{inside}"
    return WeightSource(path)


def tensor_names(module: nn.Module) -> list[str]:
    """The names of a module's own parameters and persistent buffers."""
    buffers = (name for name in module._buffers if name not in module._non_persistent_buffers_set)
    return [name for name in [*module._parameters, *buffers] if getattr(module, name, None) is not None]


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and persistent buffer by the engine's name, adapters left out; a tied one under each name."""
    apart = {id(p) for module in model._modules.values() if isinstance(module, Adapters) for p in module.parameters()}
    found: dict[str, Tensor] = {}
    for prefix, module in engine_modules(model, remove_duplicate=False):
        for name in tensor_names(module):
            tensor: Tensor = getattr(module, name)
            if id(tensor) not in apart:
                found[f"{prefix}.{name}" if prefix else name] = tensor
    return found
