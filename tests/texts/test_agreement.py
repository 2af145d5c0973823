"""Agreement of annotators, against its definitions and scikit-learn."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.errors import InputError
from cutaway.jobs import TableReader
from cutaway.texts import agree, agreement

labels = st.sampled_from(["1", "2", "3", None])
tables = st.integers(2, 4).flatmap(
    lambda n: st.lists(st.tuples(*[labels] * n), min_size=2, max_size=12).map(
        lambda rows: list(zip(*rows, strict=True))
    )
)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(agreement, "RESAMPLES", 5)


def distance(level, a, b, counts):
    """The squared distance of two labels, as Krippendorff writes it."""
    if level == "nominal":
        return float(a != b)
    if level == "interval":
        return (float(a) - float(b)) ** 2
    low, high = sorted((a, b))
    between = sum(n for label, n in counts.items() if low <= label <= high)
    return (between - (counts[low] + counts[high]) / 2) ** 2


def alpha_by_pairs(annotators, level):
    """1 - D_o / D_e over all pairs of labels of one item, and of all items."""
    units = [[label for label in row if label is not None] for row in zip(*annotators, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    every = [label for unit in units for label in unit]
    counts = {label: every.count(label) for label in every}
    n = len(every)
    observed = sum(
        distance(level, a, b, counts) / (len(unit) - 1) for unit in units for a, b in itertools.permutations(unit, 2)
    )
    expected = sum(distance(level, a, b, counts) for a, b in itertools.permutations(every, 2)) / (n - 1)
    return 1 - observed / expected if expected else math.nan


@given(tables, st.sampled_from(agreement.LEVELS))
@settings(max_examples=150, deadline=None)
def test_alpha_is_its_definition(annotators, level):
    if not any(sum(label is not None for label in row) > 1 for row in zip(*annotators, strict=True)):
        return
    before = agreement.RESAMPLES
    agreement.RESAMPLES = 2
    try:
        found = agree(*annotators, level=level)
    finally:
        agreement.RESAMPLES = before
    expected = alpha_by_pairs(annotators, level)
    assert found.alpha == pytest.approx(expected, abs=1e-9, nan_ok=True)


@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_kappa_is_that_of_scikit_learn(rows):
    from sklearn.metrics import cohen_kappa_score

    both = [(a, b) for a, b in rows if a is not None and b is not None]
    if not both:
        return
    first, second = zip(*rows, strict=True)
    [pair] = agree(first, second).pairs
    a, b = zip(*both, strict=True)
    assert pair.items == len(both)
    assert pair.observed == pytest.approx(np.mean([x == y for x, y in both]))
    if len(set(a) | set(b)) > 1:
        assert pair.kappa == pytest.approx(cohen_kappa_score(a, b), abs=1e-9, nan_ok=True)
    assert [rows[i][0] != rows[i][1] for i in pair.differ] == [True] * len(pair.differ)
    for one in pair.labels:
        both_say = sum(x == y == one.label for x, y in both)
        assert (one.first, one.second, one.both) == (a.count(one.label), b.count(one.label), both_say)
        assert one.agreement == pytest.approx(2 * both_say / (a.count(one.label) + b.count(one.label)))


def test_full_agreement_is_1_and_chance_is_about_0():
    draw = np.random.default_rng(0)
    first, second = ([str(x) for x in draw.integers(0, 3, 3000)] for _ in range(2))
    assert (agree(first, first).alpha, agree(first, first).pairs[0].kappa) == (1, 1)
    assert abs(agree(first, second).alpha) < 0.05
    assert "no more than chance" in agree(["a", "b"], ["b", "a"]).sentence()
    assert "one label alone" in agree(["a", "a"], ["a", "a"]).sentence()


def test_labels_that_are_numbers_are_in_their_order():
    assert agree(["10", "9"], ["10", "2"]).names == ["2", "9", "10"]


def test_mistakes():
    with pytest.raises(InputError, match="2 and 3 items"):
        agree(["a", "b"], ["a", "b", "c"])
    with pytest.raises(InputError, match="two annotators"):
        agree(["a"])
    with pytest.raises(InputError, match="No item has two"):
        agree(["a", None], [None, "b"])
    with pytest.raises(InputError, match="good"):
        agree(["good"], ["1"], level="interval")
    with pytest.raises(InputError, match="key 2 twice"):
        agreement.matched([[1, 2, 2], [1]])
    with pytest.raises(InputError, match="no key in common"):
        agreement.matched([[1], [2]])


def test_the_command_matches_rows_by_their_key(call, tmp_path):
    (tmp_path / "ann.csv").write_text("id,text,label\n1,a,x\n2,b,y\n3,c,x\n")
    (tmp_path / "ben.csv").write_text("id,label\n3,y\n2,y\n1,x\n9,x\n")
    paths = [str(tmp_path / name) for name in ("ann.csv", "ben.csv")]
    code, out, err = call("agree", *paths, "--key", "id", "--json", "-o", str(tmp_path / "differ.csv"))
    assert code == 0, err
    assert "1 row is in one table alone" in err
    found = json.loads(out)
    assert (found["items"], found["pairs"][0]["observed"]) == (3, pytest.approx(2 / 3))
    rows = [row.values for row in TableReader(tmp_path / "differ.csv").rows()]
    assert rows == [{"row": "3", "text": "c", "ann": "x", "ben": "y"}]
    code, _, err = call("agree", *paths)
    assert (code, "--key" in err) == (1, True)
