"""Words that the field has names for do not come back: what was renamed is defined nowhere in its folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import cutaway

ROOT = Path(cutaway.__file__).parent
# folder: the old names, of functions, classes and attributes; docs/glossary.md has the new ones
OLD = {
    "nn": """Weight state_of handed_out Joining joined chained Panels ByteWeight integer use_bytes Packed takes Bound
        bound settled Tape record play _Witness noted Stepper usable Rows Group spare several texts_in_a_row hold trim
        let_go mark separable Kept Later Certificate certify Part View Leaf publish look_up Source take give Whole Site
        Choice Turn taking onto lays_out own_options declared attend_dropped attend attend_cached put opened mixed
        shared same _whole open advance reserve firsts place places read_places leads own keep own_product together""",
    "models": """check_room Request Wanted draw _begin spread place attach lays_out own_options declared head_kinds Tape
        Stepper usable settled use_bytes integer Bound bound Packed Rows Part View Leaf publish look_up _whole""",
    "native": "FLOATS HALVES BYTES Turn turned firsts cw_play",
    "adapters": "Whole Site Choice Turn taking kept onto attach",
    "generate": """Chance Required Characters Rules RulePlan Record leave narrow widened room quiet go_on foretold Told
        usable""",
    "train": "Needless Places Ranks alone most Average Flow Stopping Turn Sizes share",
    "inspect": "Tower head_kinds archive Kept Later",
}
# of the C sources: words, and functions that are called so
C_WORDS = "room room_of softened widened HALVES Turn TURN turn_run cw_turn cw_play firsts"
C_CALLS = "first ask mixed"


def defined(tree: ast.AST) -> set[str]:
    """The functions, classes and attributes that a module defines; fields of ctypes structures by their strings."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        if isinstance(node, (ast.Module, ast.ClassDef)):
            for statement in node.body:
                targets = (
                    statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
                )
                names |= {n.id for t in targets if t is not None for n in ast.walk(t) if isinstance(n, ast.Name)}
                if isinstance(statement, ast.Assign) and names & {"_fields_"}:
                    names |= {
                        n.value for n in ast.walk(statement) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                    }
    return names


@pytest.mark.parametrize("folder", OLD)
def test_an_old_name_is_defined_nowhere(folder: str) -> None:
    old = set(OLD[folder].split())
    found = {
        path.name: names
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (names := old & defined(ast.parse(path.read_text())))
    }
    assert not found


def test_c_sources_use_the_new_names() -> None:
    found = []
    for path in sorted((ROOT / "native").glob("*.[ch]")):
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        words = [word for word in C_WORDS.split() if re.search(rf"\b{word}\b", code)]
        found += [
            f"{path.name}: {w}"
            for w in [*words, *(c for c in C_CALLS.split() if re.search(rf"(?<![\w.>]){c}\(", code))]
        ]
    assert not found


# results of functions over so many lines say what they are
LINES = 10
VAGUE = {"found", "own", "given", "told", "whole", "held"}


@pytest.mark.parametrize("folder", ["nn", "models"])
def test_results_say_what_they_are(folder: str) -> None:
    vague = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and (function.end_lineno or 0) - function.lineno >= LINES:
                stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
                vague += [f"{path.name}: {function.name}: {name}" for name in sorted(stored & VAGUE)]
    assert not vague


def test_the_kernels_know_no_cache() -> None:
    """`nn/cpu` stands lowest: it imports nothing of the engine but the layout of a batch, not even for types."""
    for path in (ROOT / "nn" / "cpu").glob("*.py"):
        for module in re.findall(r"(?:from|import) (cutaway\.nn[\w.]*)", path.read_text()):
            assert module.startswith("cutaway.nn.cpu.") or module == "cutaway.nn.packed_batch", f"{path.name}: {module}"
    assert "nn.cache_checks" not in (ROOT / "nn" / "kv_cache.py").read_text()
