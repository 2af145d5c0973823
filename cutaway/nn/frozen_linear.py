"""Packed layers for as long as nothing about them changes: what a run of decode steps multiplies by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.config.architecture import Activation
from cutaway.nn.activation_functions import ACTIVATION
from cutaway.nn.linear import Linear, PackedCache, alike, fused_activations, held, hooked, linear_op, packable
from cutaway.nn.residual import ResidualAdd


class FrozenLinear:
    """A `LinearOp` and a `LinearGroup` for as long as nothing about its layers changes: `packable` was asked once.

    It stands in the place of a `Linear` or of a `PackedCache` in what `freeze_for_decoding` makes of a model.
    """

    def __init__(self, packed: PackedCache, layers: Sequence[Linear]) -> None:
        self.packed, self.layers = packed, layers
        self.sizes = [layer.out_features for layer in layers]
        self.int8 = layers[0].int8
        self.fused_activations = fused_activations(layers[0])
        self.refreshed = False

    def __call__(self, x: Tensor, activation: Activation | None = None, residual: Tensor | None = None) -> Tensor:
        """[..., in] -> [..., out of all layers], as `PackedCache.product`."""
        if not self.refreshed:  # at the first use: a layer that is only used side by side is never packed alone
            self.packed.refresh(self.layers)
            self.refreshed = True
        return self.packed.product(x, activation, residual)

    def activated(self, x: Tensor, activation: Activation) -> Tensor:
        """As LinearOp.activated."""
        return self(x, activation) if activation in self.fused_activations else ACTIVATION[activation](self(x))

    def add_residual(self, x: Tensor, join: ResidualAdd) -> Tensor:
        """As LinearOp.add_residual; a frozen model is in evaluation mode, so nothing is dropped."""
        return join.normed(self(x, residual=join.residual))

    def fuses(self, x: Tensor) -> bool:
        """As LinearOp.fuses."""
        return True

    def products(self, layers: Sequence[Any], x: Tensor) -> Sequence[Tensor]:
        """As LinearGroup.products, of the layers that it was made of."""
        return self(x).split(self.sizes, -1)  # type: ignore[no-any-return]

    def gated(self, layers: Sequence[Any], x: Tensor, activation: Activation) -> Tensor:
        """As LinearGroup.gated, of the layers that it was made of."""
        if activation in self.fused_activations:
            return self(x, activation)
        gate, up = layers  # each packed alone: side by side, the kernel gives their product only
        return linear_op(gate).activated(x, activation) * up(x)  # type: ignore[no-any-return]

    def fused_mlp(
        self, layers: Sequence[Any], down: nn.Module, x: Tensor, activation: Activation, join: ResidualAdd
    ) -> Tensor | None:
        """None: it is worth its while for many rows, and a decode step has few."""
        return None


def freeze_linear(packed: PackedCache, layers: Sequence[nn.Module]) -> FrozenLinear | None:
    """The layers as one, for evaluation without gradients on inputs of their dtype; None where that cannot be had."""
    if any(type(layer) is not Linear or layer.site is not None or hooked(layer) for layer in layers):
        return None
    weight = held(layers[0])
    if not isinstance(weight, Tensor) or not alike(layers):
        return None
    probe = torch.empty(1, int(layers[0].in_features), dtype=weight.dtype, device=weight.device)  # type: ignore[arg-type]
    return FrozenLinear(packed, layers) if packable(probe, *layers) and packed.can_fuse(layers) else None  # type: ignore[arg-type]
