"""A file's blocks in the order of the kernels' tiles: the products and numbers of the blocks as they lie."""

import copy
import gc
import pickle
import sys

import pytest
import torch
from instructions import RUNNABLE

from cutaway import native
from cutaway.nn.cpu import tile_order
from cutaway.nn.cpu.block_panels import BlockPanels
from cutaway.nn.cpu.block_weight import BlockWeight
from tests.nn.cpu.block_files import KINDS, mapped, random_blocks
from tests.nn.cpu.test_mapped_memory import resident

pytestmark = [
    pytest.mark.skipif(native.NAME != "avx512", reason="other kernels read the blocks as they lie"),
]
LAID_OUT = [kind for kind in KINDS if kind.name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")]
named = pytest.mark.parametrize("kind", LAID_OUT, ids=lambda kind: kind.name)


@pytest.fixture
def in_tiles(tmp_path):
    """A function that gives blocks the order of the tiles, as a file's have it."""

    def made(blocks, name="blocks"):
        return mapped(blocks, tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}")

    return made


def test_other_kernels_read_the_blocks_as_they_lie():
    for name, library in RUNNABLE.items():
        assert bool(library.cw_laid_out_bytes(int(LAID_OUT[0]), 64)) == (name == "avx512")
        assert not library.cw_laid_out_bytes(int(LAID_OUT[5]), 64)  # its blocks are of 256
        assert not library.cw_laid_out_bytes(1, 64)


def close(got, want):
    assert (got - want).abs().amax() <= want.abs().amax() * 1e-5 + 1e-6


@named
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 30, 121])
def test_a_product_is_that_of_the_blocks_as_they_lie(kind, rows, in_tiles):
    torch.manual_seed(rows)
    shapes = ((1, 256), (5, 512), (16, 256), (17, 768), (33, 1024))
    for n, k in shapes if kind.name.endswith("K") else (*shapes, (16, 32), (19, 96), (48, 576)):
        for half in (0, n // 2) if n % 2 == 0 else (0,):
            blocks, bias, x = random_blocks(kind, n, k, half), torch.randn(n), torch.randn(rows, k)
            panels = BlockPanels([in_tiles(blocks)], bias)
            assert panels.tiles is not None
            close(panels.product(x), BlockPanels([blocks], bias).product(x))


@named
def test_parts_of_several_formats_gates_and_residuals(kind, in_tiles):
    torch.manual_seed(0)
    for other in (LAID_OUT[0], LAID_OUT[-1]):
        parts = [random_blocks(k, n, 512, half, n) for k, n, half in ((kind, 64, 8), (other, 32, 16), (kind, 40, 0))]
        gated = [random_blocks(k, 48, 256, seed=seed) for seed, k in enumerate((kind, other))]
        for rows in (1, 8, 29):
            x, residual = torch.randn(rows, 512), torch.randn(rows, 136)
            want, got = BlockPanels(parts, None), BlockPanels([in_tiles(part) for part in parts], None)
            assert got.tiles is not None
            close(got.product(x, None, residual), want.product(x, None, residual))
            close(got.product(x, "silu"), want.product(x, "silu"))
            x = torch.randn(rows, 256)
            want, got = BlockPanels(gated, None, True), BlockPanels([in_tiles(part) for part in gated], None, True)
            close(got.product(x, "silu"), want.product(x, "silu"))


@named
def test_a_row_depends_neither_on_the_others_nor_on_threads_and_shows_what_is_no_number(kind, in_tiles):
    torch.manual_seed(1)
    panels, before = BlockPanels([in_tiles(random_blocks(kind, 640, 1024))], None), torch.get_num_threads()
    x = torch.randn(70, 2048)[:, 512:1536]
    try:
        torch.set_num_threads(1)
        one = [panels.product(x[:rows]) for rows in (1, 7, 70)]
        torch.set_num_threads(2)
        two = [panels.product(x[:rows]) for rows in (1, 7, 70)]
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, one, two))
    assert torch.equal(one[0], one[1][:1])
    assert torch.equal(one[1], one[2][:7])
    for bad in (torch.nan, torch.inf, -torch.inf):
        rows = torch.randn(14, 1024)
        rows[5, 700] = bad
        assert panels.product(rows).isfinite().all(1).tolist() == rows.isfinite().all(1).tolist()
    assert not panels.product(torch.zeros(2, 1024)).any()


def test_the_files_pages_go_and_its_numbers_stay(in_tiles):
    kind = LAID_OUT[0]
    blocks = in_tiles(random_blocks(kind, 6400, 1024))
    weight, before = BlockWeight(blocks), BlockWeight(random_blocks(kind, 6400, 1024)).dequantize()
    x = torch.randn(3, 1024)
    assert torch.equal(weight.dequantize(), before)
    files = resident("RssFile")
    panels = BlockPanels([blocks], None)
    if sys.platform == "linux":
        assert files - resident("RssFile") > 0.9 * blocks.nbytes
    assert torch.equal(weight.dequantize(), before)
    again = BlockPanels([blocks], None)
    assert panels.tiles[0] is again.tiles[0]  # alone, or beside others: once
    for copied in (copy.deepcopy(blocks), pickle.loads(pickle.dumps(blocks))):
        assert not copied.mapped  # its memory is its own, and must not be given back
        assert BlockPanels([copied], None).tiles is None
        close(BlockPanels([copied], None).product(x), panels.product(x))
    del panels, again
    gc.collect()
    assert not tile_order._made


def test_where_memory_is_short_the_blocks_stay_as_they_lie(in_tiles, monkeypatch):
    blocks, x = in_tiles(random_blocks(LAID_OUT[0], 64, 256)), torch.randn(3, 256)
    monkeypatch.setattr(tile_order, "available_memory", lambda: blocks.nbytes * 7)
    short = BlockPanels([blocks], None)
    assert short.tiles is None
    monkeypatch.undo()
    close(BlockPanels([blocks], None).product(x), short.product(x))
