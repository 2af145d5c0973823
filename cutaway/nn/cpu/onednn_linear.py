"""The linear layer while it learns: forward and both gradients through oneDNN.

A weight changes with each step, so nothing is kept: laying one out again costs a twentieth of one product with it. In
float32 torch's default reaches half of what oneDNN does on AMD chips; in bfloat16 it is oneDNN already.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.nn.cpu.memory import keep_freed_memory
from cutaway.nn.cpu.torch_private import ONEDNN, SavingContext

# Below so many multiplications what surrounds a product costs more than the product.
LEAST = 1 << 22


def learns(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` serves: a gradient is followed through a product in float32 that is worth it."""
    return (
        ONEDNN is not None
        and torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.dim() >= 2
        and x.numel() * weight.shape[0] >= LEAST
    )


def _times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] weight^T + bias, weight [out, in] -> [..., out]."""
    assert ONEDNN is not None
    return ONEDNN.linear(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]


class _Learning(torch.autograd.Function):
    """x W^T + b and its gradients."""

    @staticmethod
    def forward(ctx: SavingContext, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _times(x.contiguous(), weight, bias)

    @staticmethod
    def backward(ctx: SavingContext, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need = ctx.needs_input_grad
        rows, seen = gradient.flatten(0, -2), x.flatten(0, -2)  # [rows, out], [rows, in]
        if torch.is_grad_enabled():  # somebody wants gradients of these gradients, which oneDNN has none for
            x_gradient = gradient @ weight if need[0] else None
            weight_gradient = rows.T @ seen if need[1] else None
        else:
            # oneDNN reads a transposed matrix where it lies: it lays it out in blocks anyway
            x_gradient = _times(gradient.contiguous(), weight.contiguous().T) if need[0] else None
            weight_gradient = _times(rows.contiguous().T, seen.contiguous().T) if need[1] else None  # [out, in]
        return x_gradient, weight_gradient, rows.sum(0) if ctx.has_bias and need[2] else None


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As F.linear, where it `learns`: [..., in] -> [..., out]."""
    keep_freed_memory()  # what a step frees is what the next one needs
    return _Learning.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]
