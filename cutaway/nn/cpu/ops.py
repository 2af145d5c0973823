"""The compiled kernels: whether they may compute in the place of torch's operators, and the call of one.

A kernel is given addresses, and believes what it is told about what lies there. `at` is the one place where a tensor
becomes an address: what a kernel takes for granted is looked at there, for every tensor of every call.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cutaway import native
from cutaway.nn.cpu.torch_private import transforming
from cutaway.nn.packed_batch import PackedBatch

DTYPES = (torch.float32, torch.bfloat16)
_TYPES = (Tensor, nn.Parameter)
CHUNK = 32  # queries that read the same keys, from which they meet them together: fewer leave a tile's columns empty
_RUN: Any = None if native.LIBRARY is None else native.LIBRARY.cw_run


class CacheColumns(Protocol):
    """What the kernels ask of a KV cache: which of its columns hold tokens. `Cache` is one."""

    @property
    def end_at(self) -> int:
        """The address of an int64, the number of columns that hold tokens, the new ones included."""

    @property
    def n_columns(self) -> int:
        """That number."""

    @property
    def scattered(self) -> bool:
        """Whether a text has hidden words between those that are held, so that columns do not tell distances."""

    def first_visible(self) -> Tensor | None:
        """[batch] int64, the first column of each text; None where all begin in the first."""


class SourceColumns(Protocol):
    """What the kernels ask of the texts that cross attention reads. `PackedBatch` is one."""

    @property
    def length(self) -> int:
        """Columns of the longest source, padding included."""

    def visible(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """The first column of each text, the one after its last, both int64 [texts], and `length` as int64 [1].

        None where a text has hidden words between those that are shown, or none at all.
        """


class _Capturing(threading.local):
    """What this thread's calls are noted in, if they are: each with what keeps its memory."""

    calls: list[tuple[native.Op, tuple[Any, ...]]] | None = None


capturing = _Capturing()


def at(x: Tensor, dtype: torch.dtype, shape: tuple[int, ...], apart: int = 0, lasting: bool = False) -> int:
    """The address of x [*shape], numbers of `dtype` in the processor's memory.

    apart: so many leading dimensions may have any strides, which the kernel is told; the others lie without gaps.
    lasting: x was there before this pass (a parameter, a cache): its storage may have been cut since it was made, which
    torch checks at no use of it either.

    Raises:
        RuntimeError: x has another dtype, shape, device or other strides. Nothing was read.
    """
    if x.dtype is not dtype or x.shape != shape or not x.is_cpu:
        raise RuntimeError(
            f"a kernel was given {x.dtype} {list(x.shape)} on {x.device} where it reads {dtype} {list(shape)} on cpu"
        )
    all_of_it = x.is_contiguous()
    if not all_of_it and x.stride()[apart:] != ((shape[-1], 1) if apart == len(shape) - 2 else (1,)):
        _check_gaps(x, apart)
    if lasting and not (all_of_it and x.storage_offset() * x.itemsize + x.nbytes <= x.untyped_storage().nbytes()):
        check_bounds(x)
    return x.data_ptr()


def _check_gaps(x: Tensor, apart: int) -> None:
    """RuntimeError where the dimensions from `apart` on do not lie without gaps."""
    step = 1
    for n, stride in zip(reversed(x.shape[apart:]), reversed(x.stride()[apart:]), strict=True):
        if stride != step and n > 1 and x.numel():
            raise RuntimeError(f"a kernel cannot read {list(x.shape)} with the strides {list(x.stride())}")
        step *= n


def check_bounds(x: Tensor) -> None:
    """RuntimeError where x reaches past the end of its storage."""
    held = x.untyped_storage().nbytes()
    extent = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    if x.numel() and (x.storage_offset() + extent) * x.itemsize > held:
        raise RuntimeError(f"{x.dtype} {list(x.shape)} reaches past its storage, which was cut to {held} bytes")


def run(op: native.Op, *kept: object) -> None:
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
    rows, heads, stride, apart = x, 1, n, 0
    if x.dim() == 2 and x.stride(1) == 1:
        stride, apart = x.stride(0), 1
    elif x.dim() == 4 and x.stride()[2:] == (n, 1) and x.shape[1] == 1:  # a part of what was multiplied side by side
        heads, stride, apart = x.shape[2], x.stride(0), 2
    else:
        rows = x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype)
    x_at = at(rows, x.dtype, x.shape, apart)
    count = x.numel() // n if n else 0
    op = _op(count, x.dtype, x_at, out.data_ptr(), (n, heads, stride), weight, bias, eps, offset, rms)
    run(op, weight, bias)
    return out


def within(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> native.Norm:
    """The norm of a layer as the last step of a product with rows like x."""
    return _op(0, x.dtype, None, None, (x.shape[-1], 1, 0), weight, bias, eps, 0.0, False)


def _op(
    rows: int,
    dtype: torch.dtype,
    x: int | None,
    out: int | None,
    lie: tuple[int, int, int],
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    offset: float,
    rms: bool,
) -> native.Norm:
    """lie: n, heads and stride, as in norm.h."""
    shape = lie[:1]
    weight, bias_at = weight.contiguous(), None  # [n]; a parameter may be a view of anything
    if bias is not None:
        bias = bias.contiguous()
        bias_at = at(bias, dtype, shape, 0, True)
    kind = (_RMS if offset else _RMS_ROUNDED) if rms else _LAYER
    weight_at, bf16 = at(weight, dtype, shape, 0, True), dtype == torch.bfloat16
    op = native.Norm(rows, x, weight_at, bias_at, out, *lie, eps, offset, kind, bf16)
    op.kept = (weight, bias)
    return op


def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rows: PackedBatch,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None = None,
) -> Tensor | None:
    """softmax(scale q k^T) v inside each text: q [rows, heads, size], k and v [rows, kv heads, size] -> as q.

    None where the kernel does not serve: it was not built, gradients are asked for, another dtype or head size, scores
    with a cap. To the last bit, a text's result does not depend on the other texts.
    """
    count, heads, size = q.shape
    kv_heads = k.shape[1]
    if size % 32 or scale <= 0 or softcap is not None or not serves(q, k, v):
        return None
    if q.dtype == torch.bfloat16 and not native.BF16:
        return None
    if heads % kv_heads or rows.used > count:
        raise RuntimeError(f"{heads} heads of {kv_heads}, in {count} rows, cannot be attention of {rows.used} tokens")
    near, dtype, kv_shape = (size, 1), q.dtype, (count, kv_heads, size)
    q = q if q.stride()[1:] == near else q.contiguous()
    k = k if k.stride()[1:] == near else k.contiguous()
    v = v if v.stride()[1:] == near else v.contiguous()
    out = torch.empty(q.shape, dtype=dtype)
    starts, lengths = rows.spans()
    op = native.Attention(
        count,
        at(q, dtype, (count, heads, size), 1),
        at(k, dtype, kv_shape, 1),
        at(v, dtype, kv_shape, 1),
        out.data_ptr(),
        q.stride(0),
        k.stride(0),
        v.stride(0),
        heads * size,
        size,
        size,
        starts.data_ptr(),
        lengths.data_ptr(),
        None,
        None,
        len(starts),
        heads,
        kv_heads,
        size,
        window or 0,
        scale,
        causal,
        dtype is torch.bfloat16,
    )
    run(op)
    if rows.n_filler:
        out[-rows.n_filler :] = 0
    return out


def decode_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    cache: CacheColumns,
    scale: float,
    window: int | None,
    softcap: float | None = None,
    bias: Tensor | None = None,
) -> Tensor | None:
    """Attention of new tokens to what a cache holds, themselves included.

    q [batch, n, heads, size], keys and values [batch, kv heads, longest + n, size] as `Cache.append` gave them ->
    [batch * n, heads, size]; None where the kernel does not serve. bias: float32 [heads, columns] added to scores, the
    last for a token's own column, the one before for its left neighbour; the first, which 16 at least must be like, for
    all that are farther.
    """
    batch, n, heads, size = q.shape
    if softcap is not None or not serves(q, keys, values) or keys.stride() != values.stride():
        return None
    # the kernel takes a column's number for its position
    if (window is not None or bias is not None) and cache.scattered:
        return None
    if q.stride()[2:] != (size, 1) or (n > 1 and batch > 1 and q.stride(0) != n * q.stride(1)):
        q = q.contiguous()
    if keys.stride()[2:] != (size, 1):
        return None
    kv_heads, first_visible = keys.shape[1], cache.first_visible()
    if heads % kv_heads:
        raise RuntimeError(f"{heads} heads cannot share the keys of {kv_heads}")
    kv_shape = (batch, kv_heads, cache.n_columns, size)
    by_tiles = not size % 32 and scale > 0 and (q.dtype != torch.bfloat16 or native.BF16)
    if by_tiles and bias is None and n > 1 and n * heads // kv_heads >= CHUNK:
        return _chunk(q, keys, values, kv_shape, scale, first_visible, window or 0)
    first = None if first_visible is None else at(first_visible, torch.int64, (batch,))
    return _step(q, keys, values, kv_shape, scale, cache.end_at, bias, first=first, bias=bias, window=window or 0)


def cross_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    sources: SourceColumns,
    memory: Tensor | None,
    scale: float,
    softcap: float | None = None,
) -> Tensor | None:
    """Attention of tokens to the source of their text.

    q [batch, n, heads, size], keys and values [sources, kv heads, source length, size] -> [batch * n, heads, size];
    None where the kernel does not serve. memory: int64 [batch], which of the sources each text reads; None where text t
    reads source t.
    """
    batch, n, _, size = q.shape
    if softcap is not None or not serves(q, keys, values) or keys.stride() != values.stride():
        return None
    visible = sources.visible()
    if visible is None or q.stride()[2:] != (size, 1) or keys.stride()[2:] != (size, 1):
        return None
    if n > 1 and batch > 1 and q.stride(0) != n * q.stride(1):
        q = q.contiguous()
    first, end, length = visible
    kv_shape = (batch if memory is None else keys.shape[0], keys.shape[1], sources.length, size)
    columns, memory_at = at(length, torch.int64, (1,)), None if memory is None else at(memory, torch.int64, (batch,))
    first_at, end_at = (at(x, torch.int64, (batch,)) for x in (first, end))
    return _step(q, keys, values, kv_shape, scale, columns, visible, first=first_at, end=end_at, memory=memory_at)


def _chunk(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    kv_shape: tuple[int, ...],
    scale: float,
    first: Tensor | None,
    window: int,
) -> Tensor:
    """As `_step` without a bias, for many new tokens of each text: a tile of them meets a key at a time.

    first: int64 [batch], the first column of each text; None where all begin in the first.
    """
    batch, n, heads, size = q.shape
    dtype, near = q.dtype, (batch, n, heads, size)
    texts = torch.arange(batch)
    first = torch.zeros_like(texts) if first is None else first
    starts, lengths = texts * n, torch.full_like(texts, n)
    key_starts, before = texts * keys.stride(0) + first * size, kv_shape[2] - n - first
    out = torch.empty(batch * n, heads, size, dtype=dtype)
    op = native.Attention(
        batch * n,
        at(q, dtype, near, 2),
        at(keys, dtype, kv_shape, 2, True),
        at(values, dtype, kv_shape, 2, True),
        out.data_ptr(),
        q.stride(1),
        size,
        size,
        heads * size,
        keys.stride(1),
        values.stride(1),
        *(at(x, torch.int64, (batch,)) for x in (starts, lengths, key_starts, before)),
        batch,
        heads,
        kv_shape[1],
        size,
        window,
        scale,
        True,
        dtype == torch.bfloat16,
    )
    run(op)
    return out


def _step(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    kv_shape: tuple[int, ...],
    scale: float,
    columns: int | None,
    kept: object,
    *,
    first: int | None = None,
    end: int | None = None,
    memory: int | None = None,
    bias: Tensor | None = None,
    window: int = 0,
) -> Tensor:
    """The kernel of a step: q [batch, n, heads, size], keys and values of `kv_shape` -> [batch * n, heads, size].

    columns, first, end, memory: addresses of what native/step.c calls so. kept: what must live as long as the op does.
    """
    batch, n, heads, size = q.shape
    dtype, columns_of_bias = q.dtype, 0 if bias is None else bias.shape[1]
    out = torch.empty(batch * n, heads, size, dtype=dtype)
    run(
        native.Step(
            batch * n,
            at(q, dtype, (batch, n, heads, size), 2),
            at(keys, dtype, kv_shape, 2, True),
            at(values, dtype, kv_shape, 2, True),
            out.data_ptr(),
            columns,
            first,
            end,
            memory,
            None,
            None if bias is None else at(bias, torch.float32, (heads, columns_of_bias)),
            *keys.stride()[:2],
            q.stride(1) if n > 1 else q.stride(0),
            n,
            heads,
            kv_shape[1],
            size,
            window,
            0,
            columns_of_bias,
            scale,
            dtype == torch.bfloat16,
        ),
        kept,
    )
    return out


def append_kv(k: Tensor, v: Tensor, keys: Tensor, values: Tensor, cache: CacheColumns) -> bool:
    """Lay new tokens' k and v [batch, n, kv heads, size] into the last columns of keys and values.

    keys and values as in `decode_attention`. False where the kernel does not serve, and nothing is done.
    """
    batch, n, heads, size = k.shape
    if not serves(k, v, keys, values) or keys.stride() != values.stride() or keys.stride()[2:] != (size, 1):
        return False
    for x in (k, v):
        if x.stride()[2:] != (size, 1) or (n > 1 and batch > 1 and x.stride(0) != n * x.stride(1)):
            return False
    bytes_, dtype = k.element_size(), k.dtype
    new, kv_shape = (batch, n, heads, size), (batch, heads, cache.n_columns, size)
    run(
        native.Put(
            batch * n,
            at(k, dtype, new, 2),
            at(v, dtype, new, 2),
            at(keys, dtype, kv_shape, 2, True),
            at(values, dtype, kv_shape, 2, True),
            cache.end_at,
            *((x.stride(1) if n > 1 else x.stride(0)) * bytes_ for x in (k, v)),
            *keys.stride()[:2],
            n,
            heads,
            size * bytes_,
            dtype == torch.bfloat16,
        )
    )
    return True


MOST_BEST = 256  # they are kept sorted by insertion


def best_tokens(logits: Tensor, n: int) -> tuple[Tensor, Tensor] | None:
    """The n likeliest tokens of each row of logits [rows, vocabulary]: their log-probabilities and ids, [rows, n] each.

    The likeliest come first, of equals the one with the lower id. Where a row's logits are no distribution (NaN, an
    infinity, or all -infinity), its log-probabilities are NaN. None where the kernel does not serve.
    """
    found = best_and_entropy(logits, n)
    return None if found is None else found[:2]


def best_and_entropy(logits: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """As `best_tokens`, and the entropy of each row's distribution in nats, [rows, 1], made in the same pass."""
    rows, vocabulary = logits.shape
    if n > MOST_BEST or logits.dtype != torch.float32 or not logits.is_contiguous() or not serves(logits):
        return None
    values, ids = torch.empty(rows, n), torch.empty(rows, n, dtype=torch.int64)
    most, total, spread = torch.empty(3, rows, 1)
    x = at(logits, torch.float32, (rows, vocabulary))
    run(native.Best(rows, x, *(out.data_ptr() for out in (values, most, total, spread, ids)), vocabulary, n))
    log_total = total.log()
    # H = -sum p log p, p = e^(x - most) / total
    return values - most - log_total, ids, log_total - spread / total
