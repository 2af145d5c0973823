"""What attention, the feed-forward layer and the residual stream know of linear layers: one, and several side by side.

`Linear` and `PackedCache` (`cutaway.nn.linear`) are what a model is made of, `FrozenLinear`
(`cutaway.nn.frozen_linear`) is both for a run of decode steps, `OtherLinear` stands for any other module that
somebody puts in a layer's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from cutaway.config.architecture import Activation
from cutaway.nn.residual import ResidualAdd


class LinearOp(Protocol):
    """One linear layer, with what follows it in the same pass where that can be had; results are the same either way.

    Attributes:
        packed: the group of this layer alone.
        int8: whether it multiplies bytes.
    """

    @property
    def packed(self) -> LinearGroup: ...

    @property
    def int8(self) -> bool: ...

    def __call__(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""

    def activated(self, x: Tensor, activation: Activation) -> Tensor:
        """activation(layer(x))."""

    def add_residual(self, x: Tensor, join: ResidualAdd) -> Tensor:
        """join(layer(x)): dropout, the sum with the residual stream, the norm that follows."""

    def fuses(self, x: Tensor) -> bool:
        """Whether one pass may do the work of several calls for this input."""


class LinearGroup(Protocol):
    """Layers that read the same input (queries, keys and values; a gate and what it lets through), as one product."""

    def products(self, layers: Sequence[Any], x: Tensor) -> Sequence[Tensor]:
        """[layer(x) for layer in layers]."""

    def gated(self, layers: Sequence[Any], x: Tensor, activation: Activation) -> Tensor:
        """activation(gate(x)) * up(x), of layers = (gate, up)."""

    def fused_mlp(
        self, layers: Sequence[Any], down: nn.Module, x: Tensor, activation: Activation, join: ResidualAdd
    ) -> Tensor | None:
        """join(down(activation(layer(x)))) or, of two layers, join(down(gated(x))), without keeping what lies between.

        None where that cannot be had.
        """
