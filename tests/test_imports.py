"""What an import costs, which way imports point, and how the source files are cut."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cutaway"
SOURCES = sorted(PACKAGE.rglob("*.py"))

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "huggingface_hub", "gguf", "pandas", "rich")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python on the package under test, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )


def loaded_by(statement: str) -> set[str]:
    """Names of the heavy packages that a statement loads in a fresh interpreter."""
    code = f"import sys; {statement}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    return set(python("-c", code).stdout.split())


def import_milliseconds(module: str) -> float:
    """Cumulative import time of `module` as `-X importtime` reports it, in milliseconds."""
    for line in reversed(python("-X", "importtime", "-c", f"import {module}").stderr.splitlines()):
        _, cumulative, name = line.rsplit("|", 2)
        if name.strip() == module:
            return int(cumulative) / 1000
    raise AssertionError(f"no line for {module}")


def test_import_cutaway_is_quick_and_loads_nothing_heavy() -> None:
    assert loaded_by("import cutaway") == set()
    # The least of several: the others measure what else the machine was doing.
    assert min(import_milliseconds("cutaway") for _ in range(5)) < 50


@pytest.mark.parametrize(
    "module",
    ["errors", "hub.files", "config", "checkpoint.field_table", "tokenization.registry", "inspect.trace.trace", "cli"],
)
def test_these_modules_load_without_torch(module: str) -> None:
    assert loaded_by(f"import cutaway.{module}") & {"torch", "transformers", "datasets", "matplotlib"} == set()


def test_help_loads_no_torch() -> None:
    if not (PACKAGE / "cli.py").exists():
        return
    done = python("-X", "importtime", "-m", "cutaway", "--help")
    assert "explain" in done.stdout
    names = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert names & {"torch", "numpy", "matplotlib", "huggingface_hub"} == set()


def test_pipeline_adds_little_to_the_import_of_torch() -> None:
    if not (PACKAGE / "pipelines").is_dir():
        return
    code = (
        "import time; a = time.perf_counter(); import torch; b = time.perf_counter();"
        "from cutaway import pipeline; c = time.perf_counter(); print(b - a, c - b)"
    )
    best = min(float(python("-c", code).stdout.split()[1]) for _ in range(3))
    assert best < 0.5


def test_imports_point_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one module (Tarjan, 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[set[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for imported in imports[module]:
            if imported not in order:
                visit(imported)
            if imported in stack:
                low[module] = min(low[module], low[imported])
        if low[module] == order[module]:
            at = stack.index(module)
            components.append(set(stack[at:]))
            del stack[at:]

    for module in imports:
        if module not in order:
            visit(module)
    return [component for component in components if len(component) > 1]


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [{"a", "b", "c"}]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_imports_in_a_circle() -> None:
    """Those inside functions count too; names that only a type checker reads do not."""
    graph = grimp.build_graph("cutaway", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert circles(imports) == []


# Modules of ours are named in strings only where names become modules: the lazy tables, the families, the pipelines.
NAMED_IN_STRINGS = {
    "cutaway", "cutaway.auto", "cutaway.checkpoint", "cutaway.compat", "cutaway.compat.finder",
    "cutaway.compat.mappings",
    "cutaway.compat.table", "cutaway.inspect", "cutaway.pipelines", "cutaway.pipelines.factory",
}  # fmt: skip


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_import_is_hidden_in_a_string() -> None:
    """`import_module("cutaway.x")` is unseen by the linter."""
    modules = {module_of(path) for path in SOURCES}
    hidden = {}
    for path in SOURCES:
        strings = (n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant))
        named = {s for s in strings if isinstance(s, str) and s in modules and s != "cutaway"}
        if "import_module" in path.read_text() and named and module_of(path) not in NAMED_IN_STRINGS:
            hidden[module_of(path)] = named
    assert hidden == {}


def test_few_modules_are_loose() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 9


def test_every_public_name_can_be_imported() -> None:
    import cutaway

    assert [name for name in getattr(cutaway, "__all__", ()) if not hasattr(cutaway, name)] == []


def test_a_source_file_is_one_noun() -> None:
    assert [p.name for p in SOURCES if p.stem in {"utils", "util", "helpers", "helper", "common", "misc"}] == []


def test_every_folder_is_a_package() -> None:
    folders = {p.parent for p in SOURCES}  # without __init__.py the import linter does not see it
    assert [f.name for f in folders if not (f / "__init__.py").exists()] == []


def test_a_family_is_a_declaration() -> None:
    families = [p for p in SOURCES if p.parent.name == "families" and p.name != "__init__.py"]
    assert {p.name: n for p in families if (n := len(p.read_text().splitlines())) > 145} == {}
    # A forward in a family would be a second engine.
    assert [p.name for p in families if "def forward" in p.read_text()] == []


def test_imports_for_types_make_no_circle() -> None:
    graph = grimp.build_graph("cutaway", exclude_type_checking_imports=False, cache_dir=None)
    below = {module: graph.find_downstream_modules(module) for module in graph.modules}
    circles = {
        frozenset(other for other in below[module] if module in below[other]) | {module}
        for module in graph.modules
        if module in {found for other in below[module] for found in below[other]}
    }
    assert [sorted(circle) for circle in circles if len(circle) > 1] == []


SAY_NOTHING = {"found", "given", "told", "own", "whole", "held"}


@pytest.mark.parametrize("folder", ["tokenization", "generate", "inspect"])
def test_names_in_long_functions_say_what_they_are(folder: str) -> None:
    vague = []
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef) or (function.end_lineno or 0) - function.lineno < 10:
                continue
            for node in ast.walk(function):
                stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in SAY_NOTHING
                if stored or (isinstance(node, ast.arg) and node.arg in SAY_NOTHING):
                    vague.append(f"{path.relative_to(ROOT)}:{node.lineno} in {function.name}")
    assert vague == []


@pytest.mark.parametrize(
    "package", ["cutaway", "cutaway.generate", "cutaway.inspect", "cutaway.pipelines", "cutaway.train"]
)
def test_no_module_hides_a_public_name(package: str) -> None:
    """A submodule that is imported becomes an attribute of its package, in the place of a name that is the same."""
    folder = ROOT.joinpath(*package.split("."))
    modules = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    assert modules & set(importlib.import_module(package).__all__) == set()
