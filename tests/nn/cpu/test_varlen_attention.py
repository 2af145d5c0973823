"""The compiled attention is the plain one, text by text."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from instructions import instructions as instructions
from torch import Tensor

from cutaway import native
from cutaway.nn.cpu.ops import varlen_attention
from cutaway.nn.packed_batch import PackedBatch
from cutaway.nn.sliding_window import band

pytestmark = [
    pytest.mark.skipif(native.LIBRARY is None, reason="no kernels on this machine"),
    pytest.mark.usefixtures("instructions"),
]
DTYPES = [torch.float32] + ([torch.bfloat16] if native.BF16 else [])


def plain(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, window: int | None) -> Tensor:
    """One text in float64: [length, heads, size]."""
    group = q.shape[1] // k.shape[1]
    q, k, v = q.double(), k.double().repeat_interleave(group, 1), v.double().repeat_interleave(group, 1)
    length = len(q)
    mask = band(length, window or length, causal, q.device)
    scores = torch.einsum("ihd,jhd->hij", q, k) * scale
    return torch.einsum("hij,jhd->ihd", scores.masked_fill(~mask, -torch.inf).softmax(-1), v)


def laid_out(lengths: list[int]) -> PackedBatch:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return PackedBatch(len(lengths), max(lengths), mask.long())


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=5),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    size=st.sampled_from([32, 64]),
    dtype=st.sampled_from(DTYPES),
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 2, 7, 40]),
    seed=st.integers(0, 1000),
)
def test_each_text_alone(lengths, heads, size, dtype, causal, window, seed):  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    rows = laid_out(lengths)
    n = sum(lengths) + rows.n_filler
    qkv = torch.randn(n, (heads[0] + 2 * heads[1]) * size).to(dtype)
    parts = qkv.split([heads[0] * size, heads[1] * size, heads[1] * size], -1)
    q, k, v = (x.view(n, -1, size) for x in parts)
    found = varlen_attention(q, k, v, rows, size**-0.5, causal, window)
    assert found is not None and found.dtype == dtype
    tolerance = 2e-6 if dtype == torch.float32 else 2e-2
    for start, length in torch.stack(rows.spans(), 1).tolist():
        own = slice(start, start + length)
        wanted = plain(q[own], k[own], v[own], size**-0.5, causal, window)
        torch.testing.assert_close(found[own].double(), wanted, atol=tolerance, rtol=tolerance)
    assert not rows.n_filler or not found[-rows.n_filler :].any()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_long_texts_are_shared_by_threads(dtype: torch.dtype, causal: bool, threads: int) -> None:
    """Texts of several pieces, whose keys are gathered, beside one whose heads share a panel."""
    lengths, size = [300, 31, 130, 513], 32
    rows = laid_out(lengths)
    qkv = torch.randn(sum(lengths) + rows.n_filler, (6 + 2 * 2) * size).to(dtype)
    q, k, v = (x.view(len(x), -1, size) for x in qkv.split([6 * size, 2 * size, 2 * size], -1))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = varlen_attention(q, k, v, rows, size**-0.5, causal, None)
    finally:
        torch.set_num_threads(before)
    assert found is not None
    tolerance = 2e-6 if dtype == torch.float32 else 2e-2
    for start, length in torch.stack(rows.spans(), 1).tolist():
        own = slice(start, start + length)
        wanted = plain(q[own], k[own], v[own], size**-0.5, causal, None)
        torch.testing.assert_close(found[own].double(), wanted, atol=tolerance, rtol=tolerance)
        alone = varlen_attention(q[own], k[own], v[own], laid_out([length]), size**-0.5, causal, None)
        assert alone is not None and torch.equal(alone[:length], found[own])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_seen_has_no_weight(dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 50, 2, 32).to(dtype)
    before = varlen_attention(q, k, v, PackedBatch(1, 50, None), 0.2, True, None)
    k[20:], v[20:] = 1e4, -1e4
    after = varlen_attention(q, k, v, PackedBatch(1, 50, None), 0.2, True, None)
    assert before is not None and after is not None
    assert torch.equal(before[:20], after[:20]) and not torch.equal(before[20:], after[20:])


def test_a_nan_stays_in_its_text() -> None:
    q, k, v = torch.randn(3, 20, 2, 32)
    q[3] = torch.nan
    found = varlen_attention(q, k, v, PackedBatch(2, 10, None), 0.2, False, None)
    assert found is not None and found[3].isnan().all() and found[10:].isfinite().all() and found[4:10].isfinite().all()


def test_left_to_torch() -> None:
    q, k, v = torch.randn(3, 6, 2, 32)
    rows = PackedBatch(1, 6, None)
    assert varlen_attention(q.double(), k.double(), v.double(), rows, 1.0, False, None) is None
    assert varlen_attention(q[..., :24], k[..., :24], v[..., :24], rows, 1.0, False, None) is None
    assert varlen_attention(q.requires_grad_(), k, v, rows, 1.0, False, None) is None
    with torch.no_grad():
        assert varlen_attention(q, k, v, rows, 1.0, False, None) is not None
