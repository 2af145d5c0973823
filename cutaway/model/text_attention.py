"""Attention inside texts that lie one after another, by the compiled kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway import native
from cutaway.model.kernel import run, serves
from cutaway.model.rows import Rows


def attend(
    q: Tensor, k: Tensor, v: Tensor, rows: Rows, scale: float, causal: bool, window: int | None
) -> Tensor | None:
    """softmax(scale q k^T) v inside each text: q [rows, heads, size], k and v [rows, kv heads, size] -> as q.

    None where the kernel does not serve: it was not built, gradients are asked for, another dtype or head size. To the
    last bit, a text's result does not depend on the other texts.
    """
    _, heads, size = q.shape
    if size % 32 or scale <= 0 or not serves(q, k, v):
        return None
    if q.dtype == torch.bfloat16 and not native.BF16:
        return None
    q, k, v = (x if x.stride()[1:] == (size, 1) else x.contiguous() for x in (q, k, v))
    out = torch.empty(q.shape, dtype=q.dtype)
    spans = rows.spans()
    op = native.Attention(
        q.shape[0],
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
    run(op)
    if rows.spare:
        out[-rows.spare :] = 0
    return out
