"""Norms of rows by the compiled kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway import native
from cutaway.model.kernel import run

_LAYER, _RMS, _RMS_ROUNDED = range(3)  # the kernel's numbers


def row_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, offset: float = 0.0, rms: bool = False
) -> Tensor:
    """x [..., n] normed over its last dimension, times weight + offset [n], plus bias [n], in x's dtype.

    Computed in float32; an RMS norm without offset is rounded before the product too, as Llama's authors have it. Only
    for what `serves` says yes to.
    """
    n = x.shape[-1]
    rows, heads, stride = x, 1, n
    if x.dim() == 2 and x.stride(1) == 1:
        stride = x.stride(0)
    elif x.dim() == 4 and x.stride()[2:] == (n, 1) and x.shape[1] == 1:  # a part of what was multiplied side by side
        heads, stride = x.shape[2], x.stride(0)
    else:
        rows = x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype)
    run(
        _op(x.numel() // n if n else 0, x.dtype, rows, out, (heads, stride), weight, bias, eps, offset, rms),
        weight,
        bias,
    )
    return out


def within(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> native.Norm:
    """The norm of a layer as the last step of a product with rows like x."""
    return _op(0, x.dtype, None, None, (1, 0), weight, bias, eps, 0.0, False)


def _op(
    rows: int,
    dtype: torch.dtype,
    x: Tensor | None,
    out: Tensor | None,
    lie: tuple[int, int],
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    offset: float,
    rms: bool,
) -> native.Norm:
    at = (None if y is None else y.data_ptr() for y in (x, weight, bias, out))
    kind = (_RMS if offset else _RMS_ROUNDED) if rms else _LAYER
    return native.Norm(rows, *at, weight.shape[0], *lie, eps, offset, kind, dtype == torch.bfloat16)
