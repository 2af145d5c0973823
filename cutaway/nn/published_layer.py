"""Layers that are published as one, or transposed: the parameter is the published one, the engine's are its views.

GPT-2 publishes queries, keys and values as one `Conv1D` [in, 3 * out]; ModernBERT, Phi-3 and GPT-NeoX as one matrix.
The parameters of a model are what is published, so that optimizers, gradients, hooks and files see what they would see
upstream. The layers of the engine hold no numbers then: each reads its part of the published parameter.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.errors import ConfigError
from cutaway.nn.cpu.block_weight import in_blocks
from cutaway.nn.engine_modules import engine_modules
from cutaway.nn.padded_hooks import PaddedHooks
from cutaway.nn.weight_map import WeightSource

_ELSEWHERE = False  # what stands for a parameter that a parametrization computes


class PublishedLayer(PaddedHooks):
    """One published layer, registered beside the layers of the engine that are its parts.

    Attributes:
        source: its name in the base model, and how it is stored. parts: the names of the engine's layers beside it.
        weight: as published, [out, in] or transposed. bias: [out] or None.
    """

    in_features: int
    out_features: int
    weight: Tensor
    bias: Tensor | None

    def __init__(self, source: WeightSource, parts: Sequence[str], layers: Sequence[nn.Linear]) -> None:
        nn.Module.__init__(self)
        self.source, self.parts = source, tuple(parts)
        self.in_features, self.out_features = layers[0].in_features, sum(layer.out_features for layer in layers)
        self.weight = _joined(source, [layer.weight for layer in layers])
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.register_parameter("bias", _joined(source, biases) if biases else None)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], the outputs in the published order."""
        return F.linear(x, self.weight.T if self.source.transpose else self.weight, self.bias)


def _joined(source: WeightSource, parts: Sequence[Tensor]) -> nn.Parameter:
    """One parameter from those of all parts."""
    first = parts[0]
    shape = source.stored_shape(first.shape)
    if first.is_meta:
        return nn.Parameter(torch.empty(shape, dtype=first.dtype, device="meta"), requires_grad=first.requires_grad)
    whole = source.to_published([part.detach() for part in parts]).contiguous()
    return nn.Parameter(whole.clone() if len(parts) == 1 else whole, requires_grad=first.requires_grad)


class FusedLinear(PublishedLayer, nn.Linear):  # type: ignore[misc]
    """Several layers of the engine, published as one matrix [out, in]."""


class Conv1D(PublishedLayer):
    """A layer that is published as [in, out] (Radford et al., 2019)."""

    def __init__(self, source: WeightSource, parts: Sequence[str], layers: Sequence[nn.Linear]) -> None:
        super().__init__(source, parts, layers)
        self.nx, self.nf = self.in_features, self.out_features

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class of that name upstream, where it is loaded: PEFT asks by it."""
        upstream = sys.modules.get("transformers.pytorch_utils")
        return getattr(upstream, "Conv1D", Conv1D)

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return _empty_conv1d, (), self.__dict__.copy()  # pickle would ask for the class by `__class__`

    def extra_repr(self) -> str:
        return f"nf={self.nf}, nx={self.nx}"


def _empty_conv1d() -> Conv1D:
    return Conv1D.__new__(Conv1D)


class PublishedPart:
    """Where a layer of the engine finds its weight and bias: in the published layer `slot` of `owner`."""

    __slots__ = ("owner", "slot", "source")

    def __init__(self, owner: nn.Module, slot: str, source: WeightSource) -> None:
        self.owner, self.slot, self.source = owner, slot, source

    @property
    def layer(self) -> nn.Module:
        """What stands in the place of the published layer now."""
        found = self.owner._modules[self.slot]
        assert found is not None
        return found

    @property
    def is_fused(self) -> bool:
        """Whether the layer at `slot` is there: it goes when its parts get weights of their own."""
        return self.slot in self.owner._modules

    @property
    def is_plain(self) -> bool:
        """Whether that is still the published layer, and nobody watches its calls: then it need not be called."""
        layer = self.layer
        return isinstance(layer, PublishedLayer) and "forward" not in layer.__dict__ and not _hooked(layer)

    def parameter(self, leaf: str) -> object:
        """The published parameter "weight" or "bias", None for no bias; False where there is no such parameter."""
        return self.parameters().get(leaf, _ELSEWHERE)

    def parameters(self) -> Mapping[str, nn.Parameter | None]:
        """All of them by their names; empty where they are computed, or the layer must be called."""
        layer = self.owner._modules[self.slot]
        if not isinstance(layer, PublishedLayer) or "forward" in layer.__dict__ or _hooked(layer):
            return {}
        return layer._parameters

    def tensor(self, leaf: str) -> Tensor | None:
        """Our part of it, [out, in] or [out]: a view where its rows lie together, else a copy."""
        whole: Tensor | None = getattr(self.layer, leaf, None)
        return None if whole is None else self.source.from_published(whole)

    def of_outputs(self, out: Tensor) -> Tensor:
        """Our part of what the published layer gave: [..., out of all parts] -> [..., out]."""
        return self.source.part_of(out, -1)

    def __call__(self, x: Tensor) -> Tensor:
        """Our part of what stands in the place gives for x [..., in]."""
        return self.of_outputs(self.layer(x))

    def changed(self, leaf: str, value: Tensor) -> nn.Parameter:
        """A copy of the published parameter, with another part in our place."""
        old = self.layer._parameters[leaf]
        assert old is not None
        new = old.detach().clone()
        self._write(new, value)
        return nn.Parameter(new, requires_grad=False)

    @torch.no_grad()
    def fill(self, leaf: str, value: Tensor) -> None:
        """Make `value` our part of the published parameter, in place."""
        old = self.layer._parameters[leaf]
        assert old is not None
        self._write(old, value)

    def _write(self, whole: Tensor, value: Tensor) -> None:
        rows = whole.T if self.source.transpose and whole.dim() == 2 else whole
        if self.source.n_parts == 1:
            rows.copy_(value)
        else:
            own = self.source.window(rows)
            own.copy_(value.unflatten(0, own.shape[:2]))

    def separate(self) -> None:
        """Give each part of the published layer parameters of its own, which are views of the published ones."""
        layer = self.layer
        if not isinstance(layer, PublishedLayer) or not self.is_plain:
            raise ConfigError(
                f"{layer.__class__.__name__} {self.slot} stands for {len(getattr(layer, 'parts', ' '))} layers of the "
                "engine, and was hooked or replaced; remove the hook, or put the published layer back, first."
            )
        for name in layer.parts:
            layer_of_part = self.owner._modules[name]
            assert layer_of_part is not None
            part: PublishedPart = layer_of_part.part  # type: ignore[assignment]
            layer_of_part.__dict__["part"] = None
            for leaf in ("weight", "bias"):
                fused = layer._parameters[leaf]
                value = None if fused is None else part.source.from_published(fused.detach())
                layer_of_part._parameters[leaf] = None if value is None or fused is None else _leaf(value, fused)
        del self.owner._modules[self.slot]


def _leaf(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=like.requires_grad)


def _hooked(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


def join_published(owner: nn.Module, layers: Mapping[str, WeightSource]) -> None:
    """Make one parameter of each that is published as one, or transposed; `layers`: {our layer: published layer}."""
    groups: dict[str, list[tuple[str, WeightSource]]] = {}
    for path, source in layers.items():
        if (source.n_parts > 1 or source.transpose) and owner.get_submodule(path).__dict__.get("part") is None:
            groups.setdefault(source.name, []).append((path, source))
    for name, members in groups.items():
        members.sort(key=lambda member: member[1].part)
        above = {path.rpartition(".")[0] for path, _ in members}
        assert len(above) == 1 and len(members) == members[0][1].n_parts, name
        parent, slot = owner.get_submodule(above.pop()), name.rpartition(".")[2]
        names = [path.rpartition(".")[2] for path, _ in members]
        linear: list[nn.Linear] = [parent._modules[one] for one in names]  # type: ignore[misc]
        if any(in_blocks(layer._parameters["weight"]) for layer in linear):
            continue
        kind = Conv1D if members[0][1].transpose else FusedLinear
        joined: PublishedLayer = kind(members[0][1], names, linear)
        for layer, (_, source) in zip(linear, members, strict=True):
            layer._parameters.clear()
            layer.__dict__["part"] = PublishedPart(parent, slot, source)
        parent._modules[slot] = joined


def rejoin(model: nn.Module) -> None:
    """`join_published` again, after `separate_all`, for all layers that hold no blocks."""
    for _, module in list(engine_modules(model)):
        layers: Mapping[str, WeightSource] | None = getattr(module, "layer_sources", None)
        if layers is not None:
            join_published(module, layers)


def part_names(model: nn.Module) -> dict[str, list[tuple[str, PublishedPart]]]:
    """{the engine's name of a published parameter: [(the engine's name of a part of it, that part)]}."""
    by_name: dict[str, list[tuple[str, PublishedPart]]] = {}
    for path, module in engine_modules(model, remove_duplicate=False):
        part: PublishedPart | None = module.__dict__.get("part")
        if part is not None:
            above = path.rpartition(".")[0]
            slot = f"{above}.{part.slot}" if above else part.slot
            for leaf in ("weight", "bias"):
                by_name.setdefault(f"{slot}.{leaf}", []).append((f"{path}.{leaf}", part))
    return by_name


def tensors_of_layer(layer: nn.Module) -> dict[str, Tensor | None]:
    """The weight and bias of one of the engine's layers, its parts of published ones too."""
    part: PublishedPart | None = layer.__dict__.get("part")
    if part is None:
        return dict(layer._parameters)
    return {leaf: part.tensor(leaf) for leaf in ("weight", "bias")}


def layer_paths(model: nn.Module) -> set[str]:
    """The engine's paths of all its layers, those that are parts of published ones included, and no published one."""
    return {
        path
        for path, m in engine_modules(model, remove_duplicate=False)
        if (m._parameters or m.__dict__.get("part") is not None) and not isinstance(m, PublishedLayer)
    }


def separate_all(model: nn.Module) -> None:
    """Give every layer of the engine parameters of its own: for weights that lie in blocks of rows."""
    for _, module in list(engine_modules(model)):
        part: PublishedPart | None = module.__dict__.get("part")
        if part is not None:
            part.separate()
