"""The notebooks run from the first cell to the last, offline, and say what they are stored with."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import notebooks
import pytest


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """A notebook may quieten the library; the tests after it want to hear it."""
    log = logging.getLogger("cutaway")
    before = log.level
    yield
    log.setLevel(before)


@pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored = json.loads(path.read_text(encoding="utf-8"))
    cells = zip(notebooks.texts(stored), notebooks.texts(notebooks.run(path)), strict=True)
    for number, (wanted, found) in enumerate(cells, start=1):
        assert notebooks.alike(found, wanted), f"code cell {number}\nstored:\n{wanted}\nnow:\n{found}"


@pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_small_whole_and_ends_with_exercises(path: Path) -> None:
    book = json.loads(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 400_000
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    assert "".join(book["cells"][-1]["source"]).startswith("## Exercises")
    assert "/tmp" not in json.dumps(book) and path.name in (notebooks.FOLDER / "README.md").read_text(encoding="utf-8")


def test_outputs_are_kept_in_order_and_differences_are_seen() -> None:
    scope: dict[str, object] = {}
    found = notebooks.run_cell("import matplotlib.pyplot as plt\nprint('a')\nplt.figure()\n6 * 7", scope, "x", 3)
    assert [o["output_type"] for o in found] == ["stream", "display_data", "execute_result"]
    assert found[2]["data"]["text/plain"] == ["42"] and found[2]["execution_count"] == 3
    assert notebooks.texts({"cells": [{"cell_type": "code", "outputs": found}]}) == ["a\n\n42\n1 pictures"]
    assert notebooks.alike("p 0.998 x", "p  0.999 x") and not notebooks.alike("p 0.9", "p 0.8")
    assert not notebooks.alike("a 1", "a 2") and not notebooks.alike("a", "b")
