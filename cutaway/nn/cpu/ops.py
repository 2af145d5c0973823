"""The compiled kernels: whether they may compute in the place of torch's operators, and the call of one."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cutaway import native
from cutaway.nn.cpu.torch_private import transforming
from cutaway.nn.packed_batch import PackedBatch

if TYPE_CHECKING:
    from cutaway.nn.kv_cache import Cache


DTYPES = (torch.float32, torch.bfloat16)
_TYPES = (Tensor, nn.Parameter)
_RUN: Any = None if native.LIBRARY is None else native.LIBRARY.cw_run


class _Capturing(threading.local):
    """What this thread's calls are noted in, if they are: each with what keeps its memory."""

    calls: list[tuple[native.Op, tuple[Any, ...]]] | None = None


capturing = _Capturing()


def run(op: native.Op, *kept: Any) -> None:
    """Do what `op` says, with as many threads as torch takes; kept: what it reads beside the rows.

    MemoryError where there is no room for it.
    """
    if _RUN(ctypes.addressof(op), torch.get_num_threads()):
        raise MemoryError(f"No memory for a kernel's work on {op.rows} rows ({type(op).__name__}).")
    if capturing.calls is not None:
        capturing.calls.append((op, tuple(x.detach() if isinstance(x, Tensor) else x for x in kept)))


def serves(*inputs: Tensor) -> bool:
    """Whether these are numbers on the processor, all float32 or all bfloat16, and no gradient follows them."""
    dtype = inputs[0].dtype
    if native.LIBRARY is None or dtype not in DTYPES or torch.is_autocast_enabled("cpu"):
        return False
    graded = torch.is_grad_enabled()
    for x in inputs:
        if type(x) not in _TYPES or x.dtype is not dtype or not x.is_cpu or (graded and x.requires_grad):
            return False
    return not transforming()


def transformed(x: Tensor) -> bool:
    """Whether `x` stands for a computation of torch's (compiled, vmapped, forward-differentiated), not for numbers."""
    return type(x) not in _TYPES or transforming()


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


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, rows: PackedBatch, scale: float, causal: bool, window: int | None
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
    if rows.n_filler:
        out[-rows.n_filler :] = 0
    return out


def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, cache: Cache, scale: float, window: int | None
) -> Tensor | None:
    """Attention of new tokens to what a cache holds, themselves included.

    q [batch, n, heads, size], keys and values [batch, kv heads, longest + n, size] as `Cache.append` gave them ->
    [batch * n, heads, size]; None where the kernel does not serve.
    """
    batch, n, heads, size = q.shape
    if not serves(q, keys, values) or keys.stride() != values.stride():
        return None
    if window is not None and cache.scattered:  # the kernel takes a column's number for its place
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


def append_kv(k: Tensor, v: Tensor, keys: Tensor, values: Tensor, cache: Cache) -> bool:
    """Lay new tokens' k and v [batch, n, kv heads, size] into the last columns of keys and values.

    keys and values as in `decode_attention`. False where the kernel does not serve, and nothing is done.
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
