"""The tensors of a checkpoint under the names and with the shapes that a model looks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.checkpoint.checkpoint import Checkpoint
from cutaway.errors import CheckpointError
from cutaway.nn.weight_map import WeightSource, numbered

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

_LEGACY = ((".gamma", ".weight"), (".beta", ".bias"))  # how TensorFlow called the numbers of a norm
_COMPUTES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Stored:
    """The tensors of a checkpoint under current names, with or without one of the base model's prefixes."""

    def __init__(self, checkpoint: Checkpoint, prefixes: set[str]) -> None:
        self.checkpoint = checkpoint
        self.names: dict[str, str] = {}
        for stored in checkpoint.names():
            name = stored
            for old, new in _LEGACY:
                if name.endswith(old):
                    name = name.removesuffix(old) + new
            self.names[name] = stored
        self.prefixes = sorted(prefix + "." for prefix in prefixes)

    def all(self, source: WeightSource) -> list[str]:
        """The stored names of a published one. Base models may be read from checkpoints with heads, and back."""
        found: dict[str, None] = {}
        for name in (source.also, source.name):
            if name:
                shorter = [name.removeprefix(p) for p in self.prefixes]
                found |= dict.fromkeys([name, *shorter, *(p + name for p in self.prefixes)])
        return [name for name in found if name in self.names]

    def find(self, source: WeightSource) -> str | None:
        """The stored name that is read."""
        return next(iter(self.all(source)), None)

    def shapes(self, found: str, source: WeightSource, wanted: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of a stored tensor, and the one that it would have if it were `wanted`."""
        return tuple(self.checkpoint.shape(self.names[found])), tuple(source.stored_shape(wanted.shape))

    def check(self, found: str, source: WeightSource, wanted: Tensor, dtype: torch.dtype | None) -> torch.dtype:
        """The dtype of a stored tensor, if it can take the place of `wanted`; CheckpointError otherwise."""
        kind = self.checkpoint.dtype(self.names[found])
        shape, asked = self.shapes(found, source, wanted)
        if shape != asked:
            raise CheckpointError(
                f"{found} has shape {list(shape)} in the checkpoint, but the config asks for {list(asked)}; change the "
                "config's sizes (num_labels, vocab_size, hidden_size), load the matching checkpoint, or draw such "
                "weights anew with ignore_mismatched_sizes=True."
            )
        if wanted.is_floating_point() and not (kind in _COMPUTES or (dtype is not None and kind.is_floating_point)):
            way = "pass dtype='float32' to widen it" if kind.is_floating_point else "save it as a floating-point dtype"
            raise CheckpointError(
                f"{found} is stored as {str(kind).removeprefix('torch.')}, which cutaway does not compute with; {way}, "
                "or load the matching checkpoint."
            )
        return kind


def same_numbers(names: list[str], hits: dict[str, str], stored: Stored) -> list[list[str]]:
    """The names of one tied weight, apart where the checkpoint holds different numbers for them.

    Some published configs say that weights are tied which the file holds twice and different (T5 v1.1); the file is
    right. A name that the file lacks goes with the first.
    """
    if len(set(hits.values())) == 1:
        return [sorted(names, key=lambda n: n not in hits)]
    read = stored.checkpoint.read
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda n: n not in hits):
        stored_name = hits.get(name) or next(iter(groups))
        twin = next((g for g in groups if g == stored_name), None)
        if twin is None:
            value = read(stored.names[stored_name])
            twin = next((g for g in groups if _same(value, read(stored.names[g]))), None)
        groups.setdefault(twin or stored_name, []).append(name)
    return list(groups.values())


def _same(a: Tensor, b: Tensor) -> bool:
    return (a.data_ptr() == b.data_ptr() and a.shape == b.shape) or torch.equal(a, b)


def check_depth(cls: Any, config: PretrainedConfig, checkpoint: Checkpoint, under: str = "") -> None:
    """CheckpointError where the config asks for more blocks than the checkpoint holds, before they are laid out.

    under: what stands before all stored names of the model, where it is a part of another.
    """
    if hasattr(cls, "part_classes"):
        for prefix, part, part_config in cls.part_classes(config):
            check_depth(part, part_config, checkpoint, prefix)
        return
    family = getattr(cls, "backbone", cls).family
    architecture = family.architecture(config)
    prefix = getattr(cls, "published_base", None)
    stored = Stored(checkpoint, {family.prefix if prefix is None else prefix, cls.base_model_prefix} - {""})
    stored.names = {n.removeprefix(under): name for n, name in stored.names.items() if n.startswith(under)}
    table = family.table(architecture)
    two = architecture.decoder is not None
    for side, stack in (("encoder." if two else "", architecture.stack), ("decoder.", architecture.decoder)):
        if stack is None:
            continue
        block = f"{side}blocks.{{i}}"
        entry = table.get(f"{block}.attn.q") or table[f"{block}.mlp.up"]
        name = f"{entry.name if isinstance(entry, WeightSource) else entry}.weight"
        if stored.find(WeightSource(numbered(name, stack.n_blocks - 1))) is not None:
            continue
        blocks = (WeightSource(numbered(name, i)) for i in range(stack.n_blocks))
        n_stored = next(i for i, source in enumerate(blocks) if stored.find(source) is None)
        if not n_stored:  # a base model that is stored under other names: all of it is drawn, and said to be untrained
            continue
        fields = [field for field, value in config.to_dict().items() if "layer" in field and value == stack.n_blocks]
        raise CheckpointError(
            f"{' or '.join(fields) or 'The number of layers'} is {stack.n_blocks}, but the checkpoint holds {n_stored} "
            f"such blocks: it has no {numbered(name, n_stored)}. Lower the number, or load the matching "
            "checkpoint."
        )
