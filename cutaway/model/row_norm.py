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
        native.Norm(
            x.numel() // n if n else 0,
            rows.data_ptr(),
            weight.data_ptr(),
            None if bias is None else bias.data_ptr(),
            out.data_ptr(),
            n,
            heads,
            stride,
            eps,
            offset,
            (_RMS if offset else _RMS_ROUNDED) if rms else _LAYER,
            x.dtype == torch.bfloat16,
        ),
        weight,
        bias,
    )
    return out
