"""Norms of rows by the compiled kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway import native

_LAYER, _RMS, _RMS_ROUNDED = range(3)  # the kernel's numbers


def row_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, offset: float = 0.0, rms: bool = False
) -> Tensor:
    """x [..., n] normed over its last dimension, times weight + offset [n], plus bias [n], in x's dtype.

    Computed in float32; an RMS norm without offset is rounded before the product too, as Llama's authors have it. Only
    for what `serves` says yes to.
    """
    library, n = native.LIBRARY, x.shape[-1]
    assert library is not None
    rows = x if x.dim() == 2 and x.stride(1) == 1 else x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype)
    library.cw_norm(
        rows.data_ptr(),
        x.numel() // n if n else 0,
        n,
        rows.stride(0) if rows.dim() == 2 else n,
        weight.data_ptr(),
        None if bias is None else bias.data_ptr(),
        eps,
        offset,
        (_RMS if offset else _RMS_ROUNDED) if rms else _LAYER,
        out.data_ptr(),
        x.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return out
