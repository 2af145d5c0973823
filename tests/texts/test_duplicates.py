"""Copies of texts: equal ones, near ones, and which stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.errors import InputError
from cutaway.jobs import TableReader
from cutaway.texts import TextVectors, dedupe, duplicates, read_texts


def at_angles(degrees):
    """Vectors [texts, 2] whose cosines are those of these angles."""
    angles = np.radians(np.array(degrees, dtype=np.float64))
    return TextVectors(torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)), 0)


def test_equal_texts_need_no_model():
    found = dedupe(["a film", "a  film ", "caf\u00e9", "cafe\u0301", "A film"])
    assert {row: [(c.row, c.exact) for c in group] for row, group in found.groups.items()} == {
        1: [(2, True)],
        3: [(4, True)],
    }
    assert (found.copies, found.rows) == (2, 5)


def test_every_copy_is_near_to_the_one_that_is_kept():
    # 0, 10, 20: each is near the one before, and the last is not near the first
    found = dedupe(["a", "b", "c", "d"], vectors=at_angles([0, 10, 20, 90]), threshold=np.cos(np.radians(12)))
    assert {row: [c.row for c in group] for row, group in found.groups.items()} == {1: [2]}
    assert found.groups[1][0].similarity == pytest.approx(np.cos(np.radians(10)), abs=1e-6)


@pytest.mark.parametrize(("keep", "kept"), [("first", 1), ("last", 3), ("longest", 2)])
def test_which_of_a_group_stays(keep, kept):
    found = dedupe(["short", "the longest", "middle"], vectors=at_angles([0, 1, 2]), keep=keep, threshold=0.99)
    assert list(found.groups) == [kept]
    assert sorted([kept, *(c.row for c in found.groups[kept])]) == [1, 2, 3]


def test_copies_of_a_copy_go_to_the_row_that_is_kept():
    found = dedupe(["x", "y", "y"], vectors=at_angles([0, 1, 1]), threshold=0.99)
    assert {row: [(c.row, c.exact) for c in group] for row, group in found.groups.items()} == {
        1: [(2, False), (3, False)]
    }


@given(st.lists(st.integers(0, 359), min_size=1, max_size=40), st.integers(1, 30), st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_blocks_change_nothing_and_nothing_near_stays(degrees, width, block):
    threshold = float(np.cos(np.radians(width + 0.5)))
    texts = [f"text {i}" for i in range(len(degrees))]
    before = duplicates.BLOCK
    try:
        duplicates.BLOCK = block
        found = dedupe(texts, vectors=at_angles(degrees), threshold=threshold)
    finally:
        duplicates.BLOCK = before

    def apart(i, j):
        return min(abs(degrees[i - 1] - degrees[j - 1]), 360 - abs(degrees[i - 1] - degrees[j - 1]))

    kept_for = found.kept_for()
    staying = [row for row in range(1, len(texts) + 1) if row not in kept_for]
    assert all(apart(i, j) > width for i in staying for j in staying if i < j)
    for row, (keeper, copy) in kept_for.items():
        nearest = min(apart(row, other) for other in staying if other < row)
        assert keeper in staying and apart(row, keeper) == nearest <= width
        assert copy.similarity == pytest.approx(np.cos(np.radians(nearest)), abs=1e-5)


def test_mistakes():
    with pytest.raises(InputError, match="between 0 and 1"):
        dedupe(["a"], threshold=95)
    with pytest.raises(InputError, match="first, last, longest"):
        dedupe(["a"], keep="best")


def test_the_command_writes_groups_or_what_stays(call, tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("id,text\n1,a film\n2,rome\n3,a  film\n4,\n")
    code, out, err = call("dedupe", str(path), "--exact", "-o", str(tmp_path / "groups.csv"))
    assert code == 0, err
    assert "1 of 3 texts are copies, in 1 groups." in out
    rows = [row.values for row in TableReader(tmp_path / "groups.csv").rows()]
    assert [(r["id"], r["group"], r["keep"], r["duplicate_of"], r["kind"]) for r in rows] == [
        ("1", "1", "True", "", ""),
        ("2", "", "True", "", ""),
        ("3", "1", "False", "1", "exact"),
        ("4", "", "True", "", ""),
    ]
    code, _, err = call("dedupe", str(path), "--exact", "-o", str(tmp_path / "kept.csv"), "--drop")
    assert code == 0, err
    assert [row.values for row in TableReader(tmp_path / "kept.csv").rows()] == [
        {"id": str(i), "text": text} for i, text in ((1, "a film"), (2, "rome"), (4, ""))
    ]
    assert read_texts(path).rows == [1, 2, 3]
