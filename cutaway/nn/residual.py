"""The residual add: the stream + dropout(a part's output), then the norm in models where it comes after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from cutaway import native
from cutaway.nn.cpu.packed_weight import PackedWeight
from cutaway.nn.dropout import dropout as drop

if TYPE_CHECKING:
    from cutaway.config.architecture import Activation


@dataclass(slots=True)
class ResidualAdd:
    """What follows a part's output: dropout, the sum with the residual stream, the norm after it.

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
        self, panels: PackedWeight, x: Tensor, down: PackedWeight | None = None, activation: Activation | None = None
    ) -> Tensor:
        """The product of many rows with one weight, or with two in a row, and all that waits for it."""
        norm = self.kernel()
        if down is None:
            out = panels.product(x, activation, self.residual, norm)
        else:
            out = panels.chain(down, x, activation, self.residual, norm)
        return self.normed(out) if norm is None else out
