"""Attention inside texts that lie one after another, by the compiled kernel."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from cutaway import native
from cutaway.model.rows import Rows

_DTYPES = (torch.float32, torch.bfloat16) if native.BF16 else (torch.float32,)


def attend(
    q: Tensor, k: Tensor, v: Tensor, rows: Rows, scale: float, causal: bool, window: int | None
) -> Tensor | None:
    """softmax(scale q k^T) v inside each text: q [rows, heads, size], k and v [rows, kv heads, size] -> as q.

    None where the kernel does not serve: it was not built, gradients are asked for, another dtype or head size. To the
    last bit, a text's result does not depend on the other texts.
    """
    library, (_, heads, size) = native.LIBRARY, q.shape
    if library is None or q.dtype not in _DTYPES or q.device.type != "cpu" or size % 32 or scale <= 0:
        return None
    if type(q) is not Tensor or torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(q):
        return None
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return None
    q, k, v = (x if x.stride()[1:] == (size, 1) else x.contiguous() for x in (q, k, v))
    out = torch.empty(q.shape, dtype=q.dtype)
    spans = rows.spans()
    given = native.Attention(
        *(x.data_ptr() for x in (q, k, v, out)),
        *(x.stride(0) for x in (q, k, v, out)),
        *(x.data_ptr() for x in spans),
        len(spans[0]),
        heads,
        k.shape[1],
        size,
        window or 0,
        scale,
        causal,
        q.dtype == torch.bfloat16,
    )
    if library.cw_attention(ctypes.addressof(given), torch.get_num_threads()):
        raise MemoryError(f"No memory for the attention of a text of {max(rows.lengths)} tokens.")
    if rows.spare:
        out[-rows.spare :] = 0
    return out
