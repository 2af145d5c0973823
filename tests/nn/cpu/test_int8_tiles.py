"""Our own 8-bit weights, in the order of the kernels' tiles: the numbers of Q8_0, and products with them."""

import gc

import pytest
import torch
import torch.nn.functional as F
from instructions import instructions as instructions

from cutaway import native
from cutaway.checkpoint.block_quantize import eight_bits
from cutaway.errors import CheckpointError
from cutaway.nn.cpu import memory
from cutaway.nn.cpu.block_panels import BlockPanels, side_by_side
from cutaway.nn.cpu.block_weight import BlockWeight
from cutaway.nn.cpu.int8_tiles import Int8Tiles

pytestmark = [
    pytest.mark.skipif(native.LIBRARY is None, reason="no kernels on this machine"),
    pytest.mark.usefixtures("instructions"),
]
# outputs and inputs: fewer than 16 outputs, a rest of them, one group, an odd number of groups, many pieces
SHAPES = ((1, 32), (5, 64), (16, 96), (17, 160), (48, 576), (70, 512), (3000, 1056))


def rows_of(n):
    return torch.arange(n)


def as_bytes(x):
    """Rows as the kernels multiply them: bytes with a scale for each 32 numbers."""
    groups = x.double().unflatten(-1, (-1, 32))
    scale = groups.abs().amax(-1, keepdim=True) / 127
    return ((groups / scale.clamp(min=1e-36)).round() * scale).flatten(-2)


def check(got, x, weight, bias=None):
    """`got` is x times a weight in float64; one byte of a row may round the other way."""
    exact = native.NAME == "avx2" and len(x) >= 8  # many rows are multiplied as they are
    want = F.linear(x.double() if exact else as_bytes(x), weight.double(), None if bias is None else bias.double())
    near = (x.double().abs() @ weight.double().abs().T).amax() * 1e-5 + 1e-6
    slack = 0.0 if exact else float(weight.abs().amax() * x.abs().amax() / 127)
    assert (got.double() - want).abs().amax() <= near + slack


@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_the_numbers_are_those_of_the_format(n, k):
    torch.manual_seed(n)
    weight = torch.randn(n, k)
    tiles, blocks = Int8Tiles(weight), eight_bits(weight)
    want = blocks.dequantized(rows_of(n))
    assert torch.equal(tiles.dequantized(rows_of(n)), want)
    assert torch.equal(BlockWeight(tiles).dequantize(), want)
    some = torch.tensor([n - 1, 0, n // 2, n - 1])
    assert torch.equal(tiles.dequantized(some), want[some])
    assert torch.equal(F.embedding(some, BlockWeight(tiles)), want[some])
    for missing in (n, -1):
        with pytest.raises(IndexError):
            F.embedding(torch.tensor([missing]), BlockWeight(tiles))
    # a file's blocks take 34 bytes for 32 numbers; here whole 16 outputs, and whole pairs of scales, lie together
    assert tiles.nbytes <= -(-n // 16) * 16 * (k + 2 * (k // 32 + 1))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 7, 8, 11, 12, 13, 25, 30, 121])
def test_a_product_of_any_shape(rows):
    torch.manual_seed(rows)
    for n, k in SHAPES[:-1]:
        tiles, bias, x = Int8Tiles(torch.randn(n, k)), torch.randn(n), torch.randn(rows, k)
        check(BlockPanels([tiles], bias).product(x), x, tiles.dequantized(rows_of(n)), bias)


def test_blocks_of_a_file_with_the_same_numbers_give_the_same():
    torch.manual_seed(0)
    weight = torch.randn(80, 576)
    for rows in (1, 4, 12, 40):
        x = torch.randn(rows, 576)
        ours, files = (BlockPanels([w], None).product(x) for w in (Int8Tiles(weight), eight_bits(weight)))
        torch.testing.assert_close(ours, files, rtol=1e-4, atol=1e-3)


def test_parts_side_by_side_gates_and_residuals():
    torch.manual_seed(1)
    parts = [Int8Tiles(torch.randn(n, 160)) for n in (64, 32, 40)]
    weight = torch.cat([part.dequantized(rows_of(part.n)) for part in parts])
    gate, up = (Int8Tiles(torch.randn(48, 160)) for _ in range(2))
    for rows in (1, 2, 7, 12, 29, 100):
        x, residual = torch.randn(rows, 160), torch.randn(rows, 136)
        panels = BlockPanels(parts, None)
        plain = panels.product(x)
        check(plain, x, weight)
        torch.testing.assert_close(panels.product(x, None, residual), plain + residual)
        torch.testing.assert_close(panels.product(x, "silu"), F.silu(plain), rtol=1e-4, atol=1e-4)
        a, b = (BlockPanels([part], None).product(x) for part in (gate, up))
        both = BlockPanels([gate, up], None, gated=True).product(x, "silu")
        torch.testing.assert_close(both, F.silu(a) * b, rtol=1e-4, atol=1e-3)
    assert not side_by_side([gate, eight_bits(torch.randn(48, 160))])  # one order of numbers in one product


def test_a_row_does_not_depend_on_the_others_nor_on_threads():
    torch.manual_seed(2)
    panels, before = BlockPanels([Int8Tiles(torch.randn(640, 1024))], None), torch.get_num_threads()
    wide = torch.randn(70, 2048)
    x = wide[:, 512:1536]
    try:
        torch.set_num_threads(1)
        one = [panels.product(x[:rows]) for rows in (1, 7, 70)]
        torch.set_num_threads(2)
        two = [panels.product(x[:rows]) for rows in (1, 7, 70)]
    finally:
        torch.set_num_threads(before)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(one[0], one[1][:1])
    if native.NAME != "avx2":
        assert torch.equal(one[1], one[2][:7])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_none_is_seen_in_its_row_alone(bad):
    panels = BlockPanels([Int8Tiles(torch.randn(48, 96))], None)
    for rows in (1, 6, 20):
        x = torch.randn(rows, 96)
        x[rows // 2, 40] = bad
        assert panels.product(x).isfinite().all(1).tolist() == x.isfinite().all(1).tolist()
    assert not panels.product(torch.zeros(2, 96)).any()


def test_what_cannot_be_stored_is_said():
    with pytest.raises(CheckpointError, match="65,504"):
        Int8Tiles(torch.full((32, 32), 7e4))


def test_weights_memory_goes_back_with_the_last_of_them():
    gc.collect()
    size = 1 << 20
    weights = [memory.weight_memory(size) for _ in range(3)]
    for i, weight in enumerate(weights):
        assert weight.shape == (size,) and weight.dtype == torch.uint8
        assert weight.untyped_storage().nbytes() == size  # a check of bounds sees this weight's end
        weight.fill_(i)
    assert [int(weight.sum()) for weight in weights] == [0, size, 2 * size]
    if hasattr(memory.mmap, "MADV_HUGEPAGE"):
        apart = sorted(weight.data_ptr() for weight in weights)
        assert apart[2] - apart[0] == 2 * size and apart[0] % 64 == 0
    large = memory.weight_memory(65 << 20)
    assert large[-1] == 0
    assert memory.weight_memory(100).shape == (100,)
    del weights, weight
    gc.collect()
    if hasattr(memory.mmap, "MADV_HUGEPAGE"):
        assert memory._current() is None
