"""Products with weights in the blocks of a file, against the same in float64 with their numbers."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from instructions import instructions as instructions
from torch import nn

from cutaway import native
from cutaway.checkpoint.gguf_blocks import FLOAT_TYPES
from cutaway.errors import CheckpointError, ConfigError
from cutaway.nn.cpu.block_panels import BlockPanels, side_by_side
from cutaway.nn.cpu.block_weight import BlockWeight
from cutaway.nn.linear import Linear
from tests.nn.cpu.block_files import KINDS, random_blocks

pytestmark = [
    pytest.mark.skipif(native.LIBRARY is None, reason="no kernels on this machine"),
    pytest.mark.usefixtures("instructions"),
]
named = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def values(*parts):
    return torch.cat([part.dequantized(torch.arange(part.n)) for part in parts]).double()


def as_bytes(x):
    """Rows as the kernels multiply them: bytes with a scale for each 32 numbers."""
    groups = x.unflatten(-1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 127
    return ((groups / scale.clamp(min=1e-36)).round() * scale).flatten(-2)


def check(panels, parts, x, residual=None, activation=None, bias=None):
    weight = values(*parts)
    got = panels.product(x, activation, residual)
    # with AVX2, many rows are multiplied as they are
    exact = parts[0].kind in FLOAT_TYPES or (native.NAME == "avx2" and len(x) >= 8)
    rows = x.double() if exact else as_bytes(x.double())
    want = F.linear(rows, weight, None if bias is None else bias.double())
    near = (x.double().abs() @ weight.abs().T).amax() * 1e-5 + 1e-6
    if activation == "silu":
        want = F.silu(want)
    if residual is not None:
        want = want + residual.double()
    # one byte of a row may round the other way where its number lies between two
    slack = 0 if exact else float(weight.abs().amax() * x.abs().amax() / 127)
    assert (got.double() - want).abs().amax() <= near + slack
    if activation is None and residual is None and not exact:  # the bound of BlockPanels
        plain = F.linear(x.double(), weight, None if bias is None else bias.double())
        groups = weight.abs().unflatten(-1, (-1, 32)).sum(-1)  # [n, k / 32]
        most = x.double().abs().unflatten(-1, (-1, 32)).amax(-1)  # [rows, k / 32]
        assert ((got.double() - plain).abs() <= (most @ groups.T) / 254 * 1.001 + near).all()


@named
def test_the_kernels_read_every_type_as_the_gguf_package_does(kind):
    for half in (0, 4):
        blocks = random_blocks(kind, 48, 512, half)
        weight, rows = BlockWeight(blocks), torch.tensor([5, 0, 47, 5])
        torch.testing.assert_close(weight.dequantize(), blocks.dequantized(torch.arange(48)), rtol=1e-6, atol=1e-7)
        assert torch.equal(F.embedding(rows, weight), weight.dequantize()[rows])
        with pytest.raises(IndexError):
            F.embedding(torch.tensor([48]), weight)
        with pytest.raises(IndexError):
            F.embedding(torch.tensor([-1]), weight)


@named
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, 12, 13, 30, 121])
def test_a_product_of_any_shape(kind, rows):
    torch.manual_seed(rows)
    for n, k in ((1, 256), (5, 512), (16, 256), (17, 768), (33, 256), (70, 512)):
        blocks = random_blocks(kind, n, k)
        bias = torch.randn(n)
        check(BlockPanels([blocks], bias), [blocks], torch.randn(rows, k), bias=bias)


@named
def test_parts_side_by_side_gates_and_residuals(kind):
    torch.manual_seed(0)
    parts = [random_blocks(k, n, 512, half, n) for k, n, half in ((kind, 64, 8), (kind, 32, 16), (KINDS[3], 40, 0))]
    gated = [random_blocks(kind, 48, 256, seed=1), random_blocks(kind, 48, 256, seed=2)]
    for rows in (1, 2, 5, 29):
        x = torch.randn(rows, 512)
        if kind not in FLOAT_TYPES:
            check(BlockPanels(parts, None), parts, x)
        check(BlockPanels(parts[:2], None), parts[:2], x, torch.randn(rows, 96))
        check(BlockPanels(parts[:2], None), parts[:2], x, None, "silu")
        x = torch.randn(rows, 256)
        got = BlockPanels(gated, None, gated=True).product(x, "silu").double()
        a, b = (BlockPanels([part], None).product(x).double() for part in gated)
        torch.testing.assert_close(got, F.silu(a) * b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [k for k in KINDS if k.name in ("F16", "BF16", "F32")], ids=lambda kind: kind.name)
@pytest.mark.parametrize("k", [1, 7, 9, 31, 257])
def test_floats_have_rows_of_any_length(kind, k):
    blocks = random_blocks(kind, 19, k)
    for rows in (1, 3, 20):
        check(BlockPanels([blocks], None), [blocks], torch.randn(rows, k))


@named
def test_threads_rows_with_gaps_and_a_number_that_is_none(kind):
    blocks = random_blocks(kind, 640, 1024)
    panels, before = BlockPanels([blocks], None), torch.get_num_threads()
    wide = torch.randn(40, 2048)
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append([panels.product(wide[:rows, 512:1536]) for rows in (1, 40)])
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)
    torch.testing.assert_close(found[0][0], panels.product(wide[:1, 512:1536].contiguous()))
    for bad in (torch.nan, torch.inf):
        x = torch.randn(6, 1024)
        x[2, 100] = bad
        for rows in (x, x[2:3]):
            finite = panels.product(rows).isfinite().all(1)
            assert finite.tolist() == rows.isfinite().all(1).tolist()
    assert not panels.product(torch.zeros(2, 1024)).any()


def test_nothing_is_read_that_is_not_there():
    blocks = random_blocks(KINDS[4], 32, 512)
    panels = BlockPanels([blocks], None)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        panels.product(torch.randn(2, 480))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        panels.product(torch.randn(2, 512, dtype=torch.bfloat16))
    for parts, gated in (
        ([blocks, random_blocks(KINDS[4], 32, 256)], False),
        ([blocks, random_blocks(KINDS[4], 16, 512)], True),
    ):
        assert not side_by_side(parts, gated)
        with pytest.raises(RuntimeError, match="side by side"):
            BlockPanels(parts, None, gated)
    assert not side_by_side([random_blocks(KINDS[4], 17, 512)] * 2)
    with pytest.raises(CheckpointError, match="cannot hold"):
        type(blocks)(blocks.data[:, :-1], blocks.kind, blocks.name, 512)
    with pytest.raises(CheckpointError, match="heads"):
        type(blocks)(blocks.data, blocks.kind, blocks.name, 512, 5)
    cut = replace(blocks, data=blocks.data.clone())
    cut.data.untyped_storage().resize_(100)
    with pytest.raises(RuntimeError, match="reaches past its storage"):
        BlockPanels([cut], None)


def layer_of(kind, n=64, k=256, bias=True):
    layer = Linear(k, n, bias).eval()
    layer.weight = nn.Parameter(BlockWeight(random_blocks(kind, n, k)), requires_grad=False)
    return layer


def test_a_weight_shows_its_numbers_to_whoever_reads_it():
    layer = layer_of(KINDS[4])
    weight = layer.weight
    plain = weight.dequantize()
    assert isinstance(weight, nn.Parameter)
    assert (weight.dtype, weight.shape, weight.device.type) == (torch.float32, (64, 256), "cpu")
    assert weight.nbytes == weight.blocks.data.nbytes < plain.nbytes / 3
    assert torch.equal(weight + 0, plain)
    assert torch.equal(weight[3:9:2], plain[3:9:2])
    assert torch.equal(weight[-1], plain[-1])
    assert torch.equal(weight[:, 5], plain[:, 5])
    assert torch.equal(torch.cat([weight, weight]), torch.cat([plain, plain]))
    assert torch.equal(weight.T.contiguous(), plain.T)
    assert torch.equal(weight.to(torch.float64), plain.double())
    assert weight.tolist() == plain.tolist()
    assert (weight.numpy() == plain.numpy()).all()
    assert repr(plain)[:30] in repr(weight)
    assert weight.new_empty(1, 3).shape == (1, 3)
    assert torch.zeros_like(weight).shape == weight.shape
    assert torch.equal(pickle.loads(pickle.dumps(layer)).weight, plain)
    assert copy.deepcopy(layer).weight.blocks is weight.blocks
    x = torch.randn(2, 256)
    before = layer(x)
    assert isinstance(layer.bfloat16().weight, nn.Parameter)
    assert type(layer.weight) is not BlockWeight
    assert torch.equal(layer.weight, plain.bfloat16())
    torch.testing.assert_close(layer.float()(x), before, rtol=0.05, atol=0.05)


def test_a_weight_in_blocks_is_never_changed():
    weight = layer_of(KINDS[4]).weight
    for change in (
        weight.zero_,
        lambda: weight.add_(1),
        lambda: weight.copy_(torch.zeros(64, 256)),
        lambda: torch.add(torch.zeros(64, 256), 1, out=weight),
        weight.requires_grad_,
        lambda: setattr(weight, "requires_grad", True),
    ):
        with pytest.raises(ConfigError, match='dtype="float32"'):
            change()


@pytest.mark.parametrize("training", [True, False])
def test_gradients_go_through_to_the_rows(training):
    torch.manual_seed(0)
    layer = layer_of(KINDS[4]).train(training)
    layer.bias.requires_grad_(False)
    x = torch.randn(3, 5, 256, requires_grad=True)
    layer(x).square().sum().backward()
    y = layer(x).detach()
    torch.testing.assert_close(x.grad, 2 * y @ layer.weight.dequantize(), rtol=1e-4, atol=1e-3)
