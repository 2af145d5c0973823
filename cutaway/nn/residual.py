"""How what a part of a block makes joins the stream: residual + dropout(output), then the norm where it comes after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cutaway import native
from cutaway.config.architecture import Activation
from cutaway.nn.cpu.packed_weight import PackedWeight
from cutaway.nn.dropout import dropout as drop
from cutaway.nn.linear import FrozenLinear, PackedCache, adapted, fusable, own_product

MANY = 64  # rows from which on a thread takes a few rows through all that follows, instead of a part of the weight
CACHED = 8 << 20  # bytes of a weight up to which it comes fast enough for that, once for every few rows


@dataclass(slots=True)
class ResidualAdd:
    """What waits for a part's output.

    Attributes:
        residual: the stream, in the output's shape.
        dropout: its rate, while `training`.
        norm: of the sum, or None.
    """

    residual: Tensor
    dropout: float = 0.0
    training: bool = False
    norm: nn.Module | None = None

    def __call__(self, out: Tensor) -> Tensor:
        return self.normed(self.residual + drop(out, self.dropout, self.training))

    def normed(self, x: Tensor) -> Tensor:
        return x if self.norm is None else self.norm(x)

    def fits(self, x: Tensor, size: int) -> bool:
        """Whether a product of rows x with so many outputs can take the residual in: torch's sum would stretch it."""
        residual = self.residual
        return residual.shape == (*x.shape[:-1], size) and residual.dtype == x.dtype and residual.is_contiguous()

    def kernel(self) -> native.Norm | None:
        """The norm as the last step of a product; None where it must be called."""
        kernel: Any = getattr(self.norm, "kernel", None)
        return None if kernel is None else kernel(self.residual)

    def product(
        self, panels: PackedWeight, x: Tensor, down: PackedWeight | None = None, activation: Any = None
    ) -> Tensor:
        """The product of many rows with one weight, or with two in a row, and all that waits for it."""
        norm = self.kernel()
        if down is None:
            out = panels.product(x, activation, self.residual, norm)
        else:
            out = panels.chain(down, x, activation, self.residual, norm)
        return self.normed(out) if norm is None else out


def add_residual(layer: nn.Module | FrozenLinear, x: Tensor, join: ResidualAdd) -> Tensor:
    """join(layer(x)), in one pass where that can be had."""
    if isinstance(layer, FrozenLinear):
        return join.normed(layer(x, residual=join.residual))
    residual = join.residual
    if residual.shape[:-1] == x.shape[:-1] and residual.is_contiguous() and fusable(x, layer):
        packed: PackedCache = layer.packed.refresh((layer,))  # type: ignore[operator, union-attr]
        if adapted(x, layer):
            return join.normed(residual + own_product(layer, packed.product(x), x))
        panels = packed.panels
        if panels is not None and x.numel() >= MANY * x.shape[-1] and panels.bytes <= CACHED and join.fits(x, panels.n):
            return join.product(panels, x)
        return join.normed(packed.product(x, residual=residual))
    return join(layer(x))


def fused_mlp(
    packed: PackedCache | FrozenLinear,
    layers: Sequence[Any],
    down: Any,
    x: Tensor,
    activation: Activation,
    join: ResidualAdd,
) -> Tensor | None:
    """join(down(what `packed` makes of x)) without keeping what lies between; None where that cannot be had.

    packed: of one layer, or of a gate and what it lets through.
    """
    if isinstance(packed, FrozenLinear) or x.numel() < MANY * x.shape[-1] or not packed.can_fuse(layers):
        return None
    if not fusable(x, *layers) or not fusable(x, down) or adapted(x, *layers, down):
        return None
    if len({layer.bias is None for layer in layers}) > 1 or not join.fits(x, down.out_features):
        return None
    first, second = packed.refresh(layers).panels, down.packed.refresh((down,)).panels
    if first is None or second is None or first.bytes > CACHED:
        return None
    return join.product(first, x, second, activation)
