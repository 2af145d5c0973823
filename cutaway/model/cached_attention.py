"""New tokens and a cache, by the compiled kernels: what goes into it, and attention to what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway import native
from cutaway.model.kernel import run, serves

if TYPE_CHECKING:
    from cutaway.model.cache import Cache


def attend_cached(
    q: Tensor, keys: Tensor, values: Tensor, cache: Cache, scale: float, window: int | None
) -> Tensor | None:
    """Attention of new tokens to what a cache holds, themselves included.

    q [batch, n, heads, size], keys and values [batch, kv heads, longest + n, size] as `Cache.append` gave them ->
    [batch * n, heads, size]; None where the kernel does not serve.
    """
    batch, n, heads, size = q.shape
    if not serves(q, keys, values) or keys.stride() != values.stride():
        return None
    if q.stride()[2:] != (size, 1) or (n > 1 and batch > 1 and q.stride(0) != n * q.stride(1)):
        q = q.contiguous()
    if keys.stride()[2:] != (size, 1):
        return None
    out = torch.empty(batch * n, heads, size, dtype=q.dtype)
    firsts = cache.firsts()
    run(
        native.Step(
            batch * n,
            *(x.data_ptr() for x in (q, keys, values, out)),
            cache.end_at,
            None if firsts is None else firsts.data_ptr(),
            *keys.stride()[:2],
            q.stride(1) if n > 1 else q.stride(0),
            n,
            heads,
            keys.shape[1],
            size,
            window or 0,
            scale,
            q.dtype == torch.bfloat16,
        )
    )
    return out


def put(k: Tensor, v: Tensor, keys: Tensor, values: Tensor, cache: Cache) -> bool:
    """Lay new tokens' k and v [batch, n, kv heads, size] into the last columns of keys and values.

    keys and values as in `attend_cached`. False where the kernel does not serve, and nothing is done.
    """
    batch, n, heads, size = k.shape
    if not serves(k, v, keys, values) or keys.stride() != values.stride() or keys.stride()[2:] != (size, 1):
        return False
    for x in (k, v):
        if x.stride()[2:] != (size, 1) or (n > 1 and batch > 1 and x.stride(0) != n * x.stride(1)):
            return False
    bytes_ = k.element_size()
    run(
        native.Put(
            batch * n,
            *(x.data_ptr() for x in (k, v, keys, values)),
            cache.end_at,
            *((x.stride(1) if n > 1 else x.stride(0)) * bytes_ for x in (k, v)),
            *keys.stride()[:2],
            n,
            heads,
            size * bytes_,
            k.dtype == torch.bfloat16,
        )
    )
    return True
