"""The layout of a batch: what goes in comes out, each text in one unbroken block, few sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cutaway.errors import InputError
from cutaway.nn import packed_batch as module
from cutaway.nn.packed_batch import PackedBatch, check_mask

masks = st.integers(1, 12).flatmap(
    lambda length: st.lists(st.lists(st.integers(0, 1), min_size=length, max_size=length), min_size=1, max_size=9)
)


def numbered(mask: Tensor) -> Tensor:
    """A different pair of numbers at each position, [batch, length, 2]."""
    return torch.arange(mask.numel() * 2, dtype=torch.float32).view(*mask.shape, 2)


@given(masks, st.integers(0, 20))
def test_packing_and_padding_are_inverse(mask_rows: list[list[int]], many: int) -> None:
    mask = torch.tensor(mask_rows)
    x = numbered(mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MANY", many)
        rows = PackedBatch(*mask.shape, mask)
    if not rows.packed:
        assert bool(mask.all())
        assert rows.pack(x) is x
        return
    packed = rows.pack(x)
    assert len(packed) == int(mask.sum()) + rows.n_filler
    assert (len(packed) - rows.n_filler <= many) == (rows.n_filler == 0) or len(packed) % module.STEP == 0
    assert torch.equal(rows.pad(packed), x * mask[..., None])


@given(masks)
def test_each_text_is_one_block_in_its_own_order(mask_rows: list[list[int]]) -> None:
    mask = torch.tensor(mask_rows)
    rows = PackedBatch(*mask.shape, mask)
    if not rows.packed:
        return
    packed = rows.pack(numbered(mask))
    covered = 0
    for g in rows.groups:
        assert g.start == covered
        covered = g.rows.stop
        assert g.texts is not None
        for text, block in zip(g.texts.tolist(), packed[g.rows].view(g.n, g.length, 2), strict=True):
            assert torch.equal(block, numbered(mask)[text][mask[text] == 1])
    assert covered == int(mask.sum())


@given(masks)
def test_positions_count_from_the_first_real_token_and_holes_keep_their_places(mask_rows: list[list[int]]) -> None:
    mask = torch.tensor(mask_rows)
    rows, other = PackedBatch(*mask.shape, mask), PackedBatch(*mask.shape, mask)
    found, counted = rows.positions(mask.device), rows.counts(mask.device)
    if rows.packed:
        found, counted = rows.pad(found + 1) - 1, rows.pad(counted + 1) - 1
    spans = []
    for text, real in enumerate(mask == 1):
        places = real.nonzero()[:, 0]
        first = int(places[0]) if len(places) else 0
        assert found[text][real].tolist() == (places - first).tolist()
        assert counted[text][real].tolist() == list(range(len(places)))
        spans.append(int(places[-1]) - first + 1 if len(places) else 0)
    assert rows.holes == other.holes == (sum(spans) != int(mask.sum()))  # before the positions are known, and after
    assert rows.reach == max(spans)
    if all(spans):
        assert rows.reaches(rows.positions(mask.device)).lengths == spans


def test_a_small_right_padded_batch_may_stay() -> None:
    right, left = torch.tensor([[1, 1, 0], [1, 1, 1]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert not PackedBatch(2, 3, right, may_stay_padded=True).packed
    assert PackedBatch(2, 3, right).packed
    assert PackedBatch(2, 3, left, may_stay_padded=True).packed


@pytest.mark.parametrize("mask", [torch.ones(2, 4), torch.full((2, 3), 0.5), torch.tensor([1, 1, 1]), [[1, 1, 1]] * 2])
def test_a_wrong_mask_says_what_is_wrong(mask: object) -> None:
    with pytest.raises(InputError, match="attention_mask"):
        check_mask(mask, 2, 3)  # type: ignore[arg-type]
