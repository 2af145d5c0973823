"""Clauses that errors share: names that are like a given one, and counts."""

from __future__ import annotations

from cutaway.errors import counted, nearest


def test_a_suggestion_is_like_what_was_given():
    assert nearest("lable", ["label", "text"]) == " Did you mean 'label'?"
    assert nearest("LABEL ", ["label", "text"]) == " Did you mean 'label'?"
    assert nearest("label", ["labels", "label_id", "text"]) == " Did you mean 'labels' or 'label_id'?"


def test_names_that_are_not_alike_are_listed_and_not_suggested():
    assert nearest("stars", ["text", "kind"]) == " There is 'kind', 'text'."
    assert nearest("stars", ["text", "kind"], few=0) == ""
    assert nearest("stars", map(str, range(100))) == ""
    assert nearest("stars", []) == ""


def test_one_is_no_plural():
    assert [counted(n, "row") for n in (0, 1, 1200)] == ["0 rows", "1 row", "1,200 rows"]
    assert counted(2, "entry", "entries") == "2 entries"
