"""No test is skipped in silence: each marker has a row in QUARANTINE.md, and each row has a marker."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent
MARKERS = {"skip", "skipif", "xfail", "importorskip", "skipTest", "SkipTest", "skipUnless", "skipIf"}


def marked(source: str, name: str) -> set[str]:
    """`file::scope` of every place in `source` that can skip a test or expect it to fail."""
    found: set[str] = set()

    def visit(node: ast.AST, scope: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                visit(child, f"{scope}::{child.name}")  # its decorators are children too
                continue
            attribute = isinstance(child, ast.Attribute) and child.attr in MARKERS
            imported = isinstance(child, ast.alias) and child.name in MARKERS
            if attribute or imported:
                found.add(scope)
            visit(child, scope)

    visit(ast.parse(source), name)
    return found


def listed(text: str) -> dict[str, list[str]]:
    """The rows of the table: test -> the other cells."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return {row[0].strip("`"): row[1:] for row in rows[2:]}


def test_every_marker_is_listed_and_every_row_is_true() -> None:
    found: set[str] = set()
    for path in sorted(TESTS.rglob("*.py")):
        if path != Path(__file__):
            found |= marked(path.read_text(encoding="utf-8"), path.relative_to(TESTS).as_posix())
    rows = listed((TESTS / "QUARANTINE.md").read_text(encoding="utf-8"))
    assert found - rows.keys() == set(), "these can be skipped and have no row in tests/QUARANTINE.md"
    assert rows.keys() - found == set(), "these rows of tests/QUARANTINE.md name nothing that is skipped"
    assert [name for name, cells in rows.items() if len(cells) != 2 or not all(cells)] == []


def test_the_search_sees_each_kind_of_marker() -> None:
    source = """
import pytest
pytest.importorskip("gguf")

@pytest.mark.skipif(True, reason="x")
def test_a(): ...

class TestB:
    @pytest.mark.xfail
    def test_c(self): ...

    def test_d(self):
        pytest.skip("x")

def test_e(): ...
"""
    assert marked(source, "t.py") == {"t.py", "t.py::test_a", "t.py::TestB::test_c", "t.py::TestB::test_d"}
    assert marked("from pytest import skip", "t.py") == {"t.py"}
    assert listed("| test | reason | goes when |\n| --- | --- | --- |\n| `t.py::a` | r | g |") == {
        "t.py::a": ["r", "g"]
    }
