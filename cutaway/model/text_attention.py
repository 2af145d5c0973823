"""Attention inside texts that lie one after another, by the compiled kernel."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from cutaway import native
from cutaway.model.cache import Cache
from cutaway.model.kernel import serves
from cutaway.model.rows import Rows


def attend(
    q: Tensor, k: Tensor, v: Tensor, rows: Rows, scale: float, causal: bool, window: int | None
) -> Tensor | None:
    """softmax(scale q k^T) v inside each text: q [rows, heads, size], k and v [rows, kv heads, size] -> as q.

    None where the kernel does not serve: it was not built, gradients are asked for, another dtype or head size. To the
    last bit, a text's result does not depend on the other texts.
    """
    library, (_, heads, size) = native.LIBRARY, q.shape
    if library is None or size % 32 or scale <= 0 or not serves(q, k, v):
        return None
    if q.dtype == torch.bfloat16 and not native.BF16:
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


def attend_cached(
    q: Tensor, keys: Tensor, values: Tensor, cache: Cache, scale: float, window: int | None
) -> Tensor | None:
    """Attention of new tokens to what a cache holds, themselves included.

    q [batch, n, heads, size], keys and values [batch, kv heads, longest + n, size] as `Cache.append` gave them ->
    [batch * n, heads, size]; None where the kernel does not serve.
    """
    library, (batch, n, heads, size) = native.LIBRARY, q.shape
    if library is None or not serves(q, keys, values) or keys.stride() != values.stride():
        return None
    if q.stride()[2:] != (size, 1) or (n > 1 and batch > 1 and q.stride(0) != n * q.stride(1)):
        q = q.contiguous()
    if keys.stride()[2:] != (size, 1):
        return None
    out = torch.empty(batch * n, heads, size, dtype=q.dtype)
    firsts = cache.firsts()
    given = native.Step(
        *(x.data_ptr() for x in (q, keys, values, out)),
        None if firsts is None else firsts.data_ptr(),
        q.stride(1) if n > 1 else q.stride(0),
        *keys.stride()[:2],
        batch,
        n,
        heads,
        *(keys.shape[1], size, keys.shape[2]),
        window or 0,
        scale,
        q.dtype == torch.bfloat16,
    )
    if library.cw_step(ctypes.addressof(given), torch.get_num_threads()):
        raise MemoryError(f"No memory for the attention to {keys.shape[2]} tokens.")
    return out
