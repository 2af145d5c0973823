"""Norms, turned heads, gates and steps by the compiled kernels are torch's; some cases are left to torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from instructions import instructions as instructions
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cutaway import native
from cutaway.config.architecture import FeedForward
from cutaway.nn.cpu import ops
from cutaway.nn.cpu.ops import (
    at,
    best_and_entropy,
    best_tokens,
    cross_attention,
    decode_attention,
    serves,
    varlen_attention,
)
from cutaway.nn.kv_cache import Cache
from cutaway.nn.linear import Linear
from cutaway.nn.norm_mlp import MLP, LayerNorm, RMSNorm
from cutaway.nn.packed_batch import PackedBatch
from cutaway.nn.positions import bias_of_steps, rotate
from cutaway.nn.residual import ResidualAdd

pytestmark = [
    pytest.mark.skipif(native.LIBRARY is None, reason="no kernels on this machine"),
    pytest.mark.usefixtures("instructions"),
]
DTYPES = [torch.float32, torch.bfloat16]


def without_kernels(do: Any, *args: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "LIBRARY", None)
        return do(*args)


def close(found: Tensor, wanted: Tensor) -> None:
    """Equal to the rounding of the dtype, once or twice."""
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    few = 1e-6 if found.dtype == torch.float32 else 2**-7
    torch.testing.assert_close(found, wanted, atol=few * float(wanted.abs().max()), rtol=few)


@torch.no_grad()
@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["layer", "layer without bias", "rms", "rms with offset"]),
    shape=st.sampled_from([(1, 2), (3, 7), (2, 3, 40), (5, 33), (70, 64)]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 100),
)
def test_norms(kind, shape, dtype, seed):  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    n = shape[-1]
    if kind.startswith("layer"):
        norm: Any = LayerNorm(n, eps=1e-6, bias=kind == "layer")
    else:
        norm = RMSNorm(n, 1e-6, 1.0 if kind.endswith("offset") else 0.0)
    for p in norm.parameters():
        p.copy_(torch.randn(n))
    norm, x = norm.to(dtype), (torch.randn(shape) * 3 + 1).to(dtype)
    close(norm(x), without_kernels(norm, x))


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [8, 20, 64])
@pytest.mark.parametrize("part", [1.0, 0.5])
def test_rotated_heads(dtype: torch.dtype, size: int, part: float) -> None:
    wide = torch.randn(2, 5, 3 * 4 * size).to(dtype)
    x = wide[..., : 4 * size].view(2, 5, 4, size)  # as a part of one product
    cos, sin = torch.randn(2, 2, 5, 1, int(size * part)).to(dtype)
    close(rotate(x, cos, sin), without_kernels(rotate, x, cos, sin))
    close(rotate(x[0], cos[0], sin[0]), without_kernels(rotate, x[0], cos[0], sin[0]))


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [48, 40])
def test_gates(dtype: torch.dtype, activation: Any, bias: bool, size: int) -> None:
    mlp = MLP(FeedForward(size, activation, gated=True, bias=bias), 24).eval().to(dtype)
    x = torch.randn(13, 24).to(dtype)
    found = mlp(x)
    assert (mlp.packed.weight is not None) == (size % 16 == 0)
    assert (mlp.gate.packed.weight is None) == (size % 16 == 0)  # once in memory, not twice
    close(found, without_kernels(mlp, x))
    mlp.up.weight.mul_(2)
    close(mlp(x), without_kernels(mlp, x))


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("has_gate", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_both_products_in_one_pass(dtype: torch.dtype, int8: bool, has_gate: bool, normed: bool) -> None:
    norm = LayerNorm(72, eps=1e-6).to(dtype) if normed else None
    for p in () if norm is None else norm.parameters():
        p.normal_()
    mlp = MLP(FeedForward(208, "gelu", gated=has_gate), 72).eval().to(dtype)
    for layer in (mlp.up, mlp.down, *((mlp.gate,) if has_gate else ())):
        layer.int8 = int8
    for shape in ((70, 72), (3, 100, 72)):
        x, residual = torch.randn(2, *shape).to(dtype)
        found = mlp(x, join=ResidualAdd(residual, norm=norm))
        rows = zip(x.flatten(0, -2).split(50), residual.flatten(0, -2).split(50), strict=True)  # too few for one pass
        assert torch.equal(found.flatten(0, -2), torch.cat([mlp(a, join=ResidualAdd(b, norm=norm)) for a, b in rows]))
    seen: list[Any] = []
    handle = mlp.down.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    mlp(x, join=ResidualAdd(residual, norm=norm))
    handle.remove()
    assert seen == [(3, 100, 208)]


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_that_ends_with_a_norm(dtype: torch.dtype, int8: bool, bias: bool) -> None:
    layer, norm = Linear(72, 88).eval().to(dtype), LayerNorm(88, bias=bias, eps=1e-6).to(dtype)
    layer.int8 = int8
    for p in norm.parameters():
        p.normal_()
    x, residual = torch.randn(300, 72).to(dtype), torch.randn(300, 88).to(dtype)
    wanted = norm(layer.add_residual(x, ResidualAdd(residual)))
    assert torch.equal(layer.add_residual(x, ResidualAdd(residual, norm=norm)), wanted)
    seen: list[Any] = []
    norm.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    assert torch.equal(layer.add_residual(x, ResidualAdd(residual, norm=norm)), wanted)
    assert torch.equal(seen[0], layer.add_residual(x, ResidualAdd(residual)))


@torch.no_grad()
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    n=st.sampled_from([1, 2, 3, 7, 20, 33, 70]),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    size=st.sampled_from([8, 20, 64, 80]),
    dtype=st.sampled_from(DTYPES),
    window=st.sampled_from([None, 1, 5]),
    steps=st.sampled_from([None, 16, 20, 60]),
    seed=st.integers(0, 100),
)
def test_new_tokens(lengths, n, heads, size, dtype, window, steps, seed):  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    batch, longest = len(lengths), max(lengths)
    cache = Cache()
    rows = PackedBatch(batch, longest, (torch.arange(longest) < torch.tensor(lengths)[:, None]).long())
    prompt = sum(lengths) + rows.n_filler if rows.packed else batch * longest
    with cache.appending(rows, 1):
        cache.store(0, *torch.randn(2, prompt, heads[1], size).to(dtype), rows)
    q = torch.randn(batch, n, heads[0], size).to(dtype)
    with cache.appending(PackedBatch(batch, n, None), 1):
        keys, values = cache.append(0, *torch.randn(2, batch, n, heads[1], size).to(dtype))
        bias = None if steps is None else torch.randn(heads[0], steps)
        if bias is not None:
            bias[:, :16] = bias[:, :1]
        found = decode_attention(q, keys, values, cache, size**-0.5, window, bias=bias)
        mask = cache.mask(window)
        distances = cache.distances()
    group = heads[0] // heads[1]
    wide_k, wide_v = (x.double().repeat_interleave(group, 1) for x in (keys, values))
    scores = q.double().transpose(1, 2) @ wide_k.transpose(2, 3) * size**-0.5
    if bias is not None:
        scores = scores + bias_of_steps(bias, distances).double()
    weights = (scores if mask is None else scores + mask.double()).softmax(-1)
    wanted = (weights @ wide_v).transpose(1, 2).flatten(0, 1)
    few = 1e-5 if dtype == torch.float32 else 2e-2
    assert found is not None
    torch.testing.assert_close(found.double(), wanted, atol=few, rtol=few)


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_piece_of_a_prompt_meets_the_cache_by_tiles(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    by_tiles: list[int] = []
    chunk = ops._chunk
    monkeypatch.setattr(ops, "_chunk", lambda q, *rest: by_tiles.append(q.shape[1]) or chunk(q, *rest))
    held, new = torch.randn(2, 50, 3, 64).to(dtype), torch.randn(2, 1, 40, 3, 64).to(dtype)
    q = torch.randn(1, 40, 9, 64).to(dtype)

    def read(piece: int) -> Tensor:
        cache, found = Cache(), []
        with cache.appending(PackedBatch(1, 50, None), 1):
            cache.store(0, *held, PackedBatch(1, 50, None))
        for own in torch.arange(40).split(piece):
            with cache.appending(PackedBatch(1, len(own), None), 1):
                keys, values = cache.append(0, *new[:, :, own])
                found.append(decode_attention(q[:, own], keys, values, cache, 0.125, None))
        return torch.cat(found)

    whole = read(40)
    close(whole, read(1))
    close(whole, read(20))
    assert by_tiles == ([40, 20, 20] if dtype == torch.float32 or native.BF16 else [])


@torch.no_grad()
@settings(max_examples=40, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30)), min_size=1, max_size=4),
    memory=st.none() | st.lists(st.integers(0, 99), min_size=1, max_size=9),
    n=st.integers(1, 3),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    size=st.sampled_from([8, 20, 64, 80]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 100),
)
def test_tokens_read_the_source_of_their_text(spans, memory, n, heads, size, dtype, seed):  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    longest = max(a + b for a, b in spans)
    source = None if memory is None else torch.tensor([i % len(spans) for i in memory])
    own = torch.arange(len(spans)) if source is None else source
    keys, values = torch.randn(2, len(spans), heads[1], longest, size).to(dtype)
    first, end = torch.tensor(spans).T
    end = first + end
    columns = torch.arange(longest)
    shown = ((columns >= first[:, None]) & (columns < end[:, None]))[own]  # [texts, longest]
    q = torch.randn(len(own), n, heads[0], size).to(dtype)
    rows = PackedBatch(len(own), longest, shown.long())
    found = cross_attention(q, keys, values, rows, source, size**-0.5)
    group = heads[0] // heads[1]
    wide_k, wide_v = (x[own].double().repeat_interleave(group, 1) for x in (keys, values))
    scores = q.double().transpose(1, 2) @ wide_k.transpose(2, 3) * size**-0.5
    weights = scores.masked_fill(~shown[:, None, None], -torch.inf).softmax(-1)
    wanted = (weights @ wide_v).transpose(1, 2).flatten(0, 1)
    few = 1e-5 if dtype == torch.float32 else 2e-2
    assert found is not None
    torch.testing.assert_close(found.double(), wanted, atol=few, rtol=few)


def test_a_hole_or_an_empty_source_is_left_to_torch() -> None:
    q, keys = torch.randn(2, 1, 2, 8), torch.randn(2, 2, 3, 8)
    for mask in ([[1, 0, 1], [1, 1, 1]], [[0, 0, 0], [1, 1, 1]]):
        assert cross_attention(q, keys, keys, PackedBatch(2, 3, torch.tensor(mask)), None, 1.0) is None


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 4),
    vocabulary=st.sampled_from([1, 5, 64, 200, 1000]),
    n=st.integers(1, 12),
    few=st.booleans(),
    seed=st.integers(0, 100),
)
def test_best_tokens(rows: int, vocabulary: int, n: int, few: bool, seed: int) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(rows, vocabulary) * 5
    if few:  # many are equal, and many are ruled out
        logits = logits.round().masked_fill(torch.rand(rows, vocabulary) < 0.3, -torch.inf)
        logits[:, 0] = 0.0
    n = min(n, vocabulary)
    found = best_tokens(logits, n)
    assert found is not None
    wanted, order = logits.sort(dim=-1, descending=True, stable=True)
    total = logits.double().logsumexp(-1, keepdim=True)
    torch.testing.assert_close(found[0].double(), wanted[:, :n] - total, atol=1e-5, rtol=1e-6)
    real = wanted[:, :n].isfinite()
    assert torch.equal(found[1][real], order[:, :n][real])
    both = best_and_entropy(logits, n)
    assert both is not None and torch.equal(both[0], found[0]) and torch.equal(both[1], found[1])
    entropy = torch.special.entr((logits.double() - total).exp()).sum(-1, keepdim=True)
    torch.testing.assert_close(both[2].double(), entropy, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_best_tokens_of_no_distribution(wrong: float) -> None:
    logits = torch.randn(2, 100)
    logits[1, 70] = wrong
    found = best_tokens(logits, 4)
    assert found is not None and found[0][0].isfinite().all() and found[0][1].isnan().any()
    found = best_tokens(torch.full((1, 100), -torch.inf), 4)
    assert found is not None and found[0].isnan().all()


def test_left_to_torch() -> None:
    x = torch.randn(3, 4)
    assert serves(x) and serves(x, x) and not serves(x.double()) and not serves(x, x.bfloat16())
    assert not serves(x.clone().requires_grad_()) and not serves(x.to("meta"))
    with torch.no_grad():
        assert serves(x.clone().requires_grad_())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not serves(x)
    norm = LayerNorm(4)
    torch.func.vmap(norm)(x)
    assert norm(x.requires_grad_()).requires_grad


@torch.no_grad()
def test_other_widths_are_never_read() -> None:
    x = torch.randn(80, 5)
    for module in (Linear(24, 40), RMSNorm(24, 1e-6), LayerNorm(24).bfloat16()):
        given = x.to(next(module.parameters()).dtype)
        with pytest.raises(RuntimeError):
            module.eval()(given)
    mlp, wide = MLP(FeedForward(48, "gelu"), 24).eval(), torch.randn(80, 24)
    close(mlp(wide, join=ResidualAdd(torch.ones(1, 24))), mlp(wide) + 1)


def views(like: Tensor) -> dict[str, Tensor]:
    """The shape and dtype of `like` in other places and strides of memory: what a parameter may be a view of."""
    n, dtype = like.shape[-1], like.dtype
    wide = torch.randn(*like.shape[:-1], 2 * n + 3).to(dtype)
    return {
        "every other number": wide[..., 1 : 2 * n : 2],
        "one number, stretched": torch.randn(1).to(dtype).expand(like.shape),
        "one row, stretched": torch.randn(n).to(dtype).expand(like.shape),
        "a part of a wider row": wide[..., 2 : n + 2],
        "columns of a matrix": torch.randn(like.shape[::-1]).to(dtype).permute(*range(like.dim())[::-1]),
        "at the end of its storage": torch.randn(like.numel() + 5).to(dtype)[5:].view(like.shape),
        "rows backwards": torch.randn(like.shape).to(dtype).flip(0),
    }


VIEWS = list(views(torch.empty(2, 2)))


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("how", VIEWS)
def test_norms_whose_weight_is_a_view(how: str, dtype: torch.dtype) -> None:
    for norm in (LayerNorm(40), LayerNorm(40, bias=False), RMSNorm(40, 1e-6), RMSNorm(40, 1e-6, 1.0)):
        norm.to(dtype)
        for name, p in list(norm.named_parameters()):
            setattr(norm, name, nn.Parameter(views(p)[how]))
        x = torch.randn(7, 40).to(dtype)
        close(norm(x), without_kernels(norm, x))
        for where, one in views(x).items():
            if where != "one number, stretched":  # its variance is what rounding left of it
                close(norm(one), without_kernels(norm, one))
    layer, join = Linear(24, 40).eval().to(dtype), ResidualAdd(torch.randn(70, 40).to(dtype))
    norm = LayerNorm(40).to(dtype)
    for name in ("weight", "bias"):
        setattr(norm, name, nn.Parameter(views(getattr(norm, name))[how]))
    x = torch.randn(70, 24).to(dtype)
    found = layer.add_residual(x, ResidualAdd(join.residual, norm=norm))
    assert torch.equal(found, norm(layer.add_residual(x, join)))


@torch.no_grad()
def test_a_norm_whose_weight_is_made_for_each_call() -> None:
    """It is gone once its owner has looked at it, so the kernel holds on to it."""

    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 2

    layer, norm = Linear(24, 4096).eval(), LayerNorm(4096)
    parametrize.register_parametrization(norm, "weight", Doubled())
    x, residual = torch.randn(70, 24), torch.randn(70, 4096)
    wanted = norm(layer.add_residual(x, ResidualAdd(residual)))
    assert torch.equal(layer.add_residual(x, ResidualAdd(residual, norm=norm)), wanted)


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("how", VIEWS)
@pytest.mark.parametrize("int8", [False, True])
def test_products_of_views(how: str, dtype: torch.dtype, int8: bool) -> None:
    layer = Linear(24, 40).eval().to(dtype)
    layer.int8 = int8
    layer.weight = nn.Parameter(views(layer.weight)[how])
    layer.bias = nn.Parameter(views(layer.bias)[how])
    twin = Linear(24, 40).eval().to(dtype)
    twin.int8 = int8
    for p, q in zip(twin.parameters(), layer.parameters(), strict=True):
        p.copy_(q)
    for rows in (9, 70):
        x, residual = torch.randn(rows, 24).to(dtype), torch.randn(rows, 40).to(dtype)
        for one in views(x).values():
            assert torch.equal(layer(one), twin(one.contiguous()))
        panels = twin.packed.panels
        if panels is None:
            continue
        for one in (*views(residual).values(), residual[:1], residual.float() + 1, residual[:, :1]):
            whole = one.expand(rows, 40).to(dtype)
            wanted = panels.product(x, None, whole.contiguous())
            close(panels.product(x, None, one).to(dtype), wanted)
            close(layer.add_residual(x, ResidualAdd(one)).to(dtype), wanted)


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("how", VIEWS)
def test_heads_and_angles_that_are_views(how: str, dtype: torch.dtype) -> None:
    x, cos = torch.randn(6, 4, 32).to(dtype), torch.randn(6, 1, 16).to(dtype)
    sin = torch.randn(6, 1, 16).to(dtype)
    x, cos, sin = (views(y)[how] for y in (x, cos, sin))
    close(rotate(x, cos, sin), without_kernels(rotate, x, cos, sin))
    q, k, v = (views(torch.randn(6, 4, 32).to(dtype))[how] for _ in range(3))
    if dtype == torch.float32 or native.BF16:
        found = varlen_attention(q, k, v, PackedBatch(2, 3, None), 0.2, True, None)
        wanted = varlen_attention(*(y.contiguous() for y in (q, k, v)), PackedBatch(2, 3, None), 0.2, True, None)
        assert found is not None and wanted is not None and torch.equal(found, wanted)


@torch.no_grad()
def test_what_a_kernel_cannot_read_is_refused() -> None:
    x = torch.randn(6, 32)
    assert at(x, torch.float32, (6, 32)) == x.data_ptr()
    assert at(x[:, :8], torch.float32, (6, 8), 1) == x.data_ptr()
    cut = torch.randn(6, 32)
    cut.untyped_storage().resize_(100)
    slanted = torch.randn(40).as_strided((6, 4), (7, 1))
    slanted.untyped_storage().resize_(38 * 4)
    for one, dtype, shape, apart in (
        (x, torch.bfloat16, (6, 32), 0),
        (x, torch.float32, (6, 31), 0),
        (x, torch.float32, (192,), 0),
        (x.to("meta"), torch.float32, (6, 32), 0),
        (x.T, torch.float32, (32, 6), 0),
        (x.T, torch.float32, (32, 6), 1),
        (x[:, ::2], torch.float32, (6, 16), 1),
        (x[:1].expand(6, 32), torch.float32, (6, 32), 0),
        (cut, torch.float32, (6, 32), 0),
        (slanted, torch.float32, (6, 4), 1),
    ):
        with pytest.raises(RuntimeError):
            at(one, dtype, shape, apart, lasting=True)
    norm = LayerNorm(32)
    norm.bias = nn.Parameter(torch.zeros(1))
    with pytest.raises(RuntimeError):
        norm(x)
    with pytest.raises(RuntimeError):
        Linear(32, 8).eval().packed.refresh([Linear(32, 8).eval()]).product(x.bfloat16())
    norm = RMSNorm(32, 1e-6)
    norm.weight.untyped_storage().resize_(64)
    with pytest.raises(RuntimeError):
        norm(x)


def test_every_address_goes_through_one_door() -> None:
    """Nothing becomes an address but through `at`, except what was made by the line before."""
    folder = Path(native.__file__).parents[1]
    seen: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        for name in re.findall(r"([\w.]+)\.data_ptr\(\)", path.read_text()):
            seen.setdefault(path.relative_to(folder).as_posix(), set()).add(name)
    assert seen == {
        "nn/cpu/ops.py": {"x", "out", "starts", "lengths"},  # x: the door
        "nn/cpu/packed_weight.py": {"out", "self.packed", "self.shift"},
        "nn/cpu/block_weight.py": {"out", "self.blocks.data"},  # the second is compared, and never followed
        "nn/positions.py": {"out"},
        "nn/kernel_graph.py": {"to", "buffer", "first_visible"},  # its own, and the cache that it asks `at` for
        "nn/block_graph.py": {"out", "p"},  # the second is compared
        "nn/cpu/tracked_parameter.py": {"parameter"},
        "nn/cpu/memory.py": {"weight", "mapped"},
        # compared, and never followed
        "nn/cpu/tile_order.py": {"part.data"},
        "models/decode_step.py": {"x", "p"},
        "models/checkpoint_names.py": {"a", "b"},
        "checkpoint/torch_pickle.py": {"held"},
        "compat/tensors.py": {"storage"},
    }
