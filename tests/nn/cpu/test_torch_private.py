"""What is private in torch may go with any version: models run without each such name, to the same results."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
HOME = ROOT / "cutaway" / "nn" / "cpu" / "torch_private.py"
ROUNDING = {"bfloat16": 0.05, "int8": 1e-4}  # oneDNN's bfloat16 rounds elsewhere than ours


def private_names(source: str) -> list[str]:
    """Private names of torch that `source` takes from what it imports of torch, or asks for in a `getattr`."""
    tree, found = ast.parse(source), []
    of_torch = {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            of_torch |= {alias.asname or alias.name for alias in node.names}
            steps = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found += [step for step in steps if step.startswith("_")]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "torch":
                    of_torch.add(alias.asname or "torch")
                    found += [step for step in alias.name.split(".") if step.startswith("_")]

    def from_torch(node: ast.AST) -> bool:
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in of_torch

    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.Attribute) and (node.attr == "_version" or from_torch(node)):
            name = node.attr
        elif (
            isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr") and from_torch(node.args[0])
        ):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
        if isinstance(name, str) and name.startswith("_") and not name.startswith("__"):
            found.append(name)
    return found


def test_private_names_of_torch_stand_in_one_file() -> None:
    sources = {p.relative_to(ROOT).as_posix(): p.read_text() for p in (ROOT / "cutaway").rglob("*.py") if p != HOME}
    assert {path: names for path, source in sources.items() if (names := private_names(source))} == {}
    # and there each is asked for, not taken
    assert "_linear_pointwise" in HOME.read_text()
    tree = ast.parse(HOME.read_text())
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "getattr"):
        assert len(call.args) == 3, f"line {call.lineno}: a getattr without a way out"
    taken = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr.startswith("_")]
    assert [ast.unparse(n) for n in taken if not n.attr.startswith("__")] == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch._int_mm(a, b)",
        "import torch\ngetattr(torch.cpu, '_is_x', None)",
        "from torch.utils._python_dispatch import TorchDispatchMode",
        "from torch.nn.modules import module as m\nm._global_forward_hooks",
        "import torch.nn.modules as m\nm.module._global_forward_hooks",
        "parameter._version",
    ],
)
def test_the_search_sees_each_way_to_a_private_name(source: str) -> None:
    assert len(private_names(source)) == 1
    assert private_names("import torch\ntorch.Tensor.__len__; self._x; module._parameters; torch.nn.Linear") == []


def test_models_run_the_same_without_each_private_name(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "without_private_names.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    runs = {path.stem: torch.load(path) for path in tmp_path.glob("*.pt")}
    wanted = runs.pop("nothing")
    assert {"_linear_pointwise", "_version", "peek_interpreter_stack", "TorchDispatchMode", "*"} <= runs.keys()
    for missing, run in runs.items():
        for way, results in run.items():
            assert results.keys() == wanted[way].keys()
            for name, value in results.items():
                few = ROUNDING.get(name, 1e-5)
                close = torch.allclose(value.double(), wanted[way][name].double(), atol=few, rtol=few)
                assert close, f"without {missing}, {way}: {name}"
