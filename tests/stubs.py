"""The stubs (`__init__.pyi`) of the packages that users import from, written from the packages' own tables of names.

Names that are imported when they are first used are invisible to type checkers and editors; the stub beside the package
says where each of them is. `python tests/stubs.py --write` writes the stubs anew, without the flag it compares.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cutaway", "cutaway.generate", "cutaway.inspect", "cutaway.pipelines", "cutaway.train")


def path_of(package: str) -> Path:
    return ROOT / package.replace(".", "/") / "__init__.pyi"


def homes(package: str) -> dict[str, str]:
    """{public name: the module that it is imported from}, of a lazy table or of plain imports."""
    tree = ast.parse(path_of(package).with_suffix(".py").read_text(encoding="utf-8"))
    imported: dict[str, str] = {}
    for node in ast.walk(tree):  # also what is imported for type checkers alone
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {name.asname or name.name: node.module for name in node.names}
    module = importlib.import_module(package)
    lazy = getattr(module, "_HOME", None) or getattr(module, "_LAZY", None) or {}
    return {name: lazy.get(name) or imported[name] for name in module.__all__}


def stub(package: str) -> str:
    by_module: dict[str, list[str]] = {}
    known = homes(package)
    module = importlib.import_module(package)
    for name, home in known.items():
        made = getattr(module, name)
        own = getattr(made, "__name__", name) if isinstance(made, type) else name
        if getattr(made, "__module__", home).partition(".")[0] != "cutaway" and isinstance(made, type):
            home = made.__module__.partition(".")[0]  # another library's class, under its own name
        there = importlib.import_module(home)
        defined = name in vars(there) or name in getattr(there, "__all__", ())
        by_module.setdefault(home, []).append(name if own == name or defined else f"{own} as {name}")
    lines = [
        "# Written by `python tests/stubs.py --write` from the table of names in __init__.py: change that one.",
        *(f"from {home} import {', '.join(sorted(names))}" for home, names in sorted(by_module.items())),
        *(["__version__: str"] if package == "cutaway" else []),
        f"__all__ = {sorted(known)!r}",
    ]
    return _formatted("\n".join(lines) + "\n", path_of(package))


def _formatted(text: str, path: Path) -> str:
    for command in (["check", "--select", "I,RUF022", "--fix", "--quiet"], ["format", "--quiet"]):
        call = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(path), "-"]
        text = subprocess.run(call, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text


def differing(write: bool = False) -> list[str]:
    """The packages whose stub is not what their table says; with `write` they are written."""
    found = []
    for package in PACKAGES:
        path, wanted = path_of(package), stub(package)
        if not path.exists() or path.read_text(encoding="utf-8") != wanted:
            found.append(package)
            if write:
                path.write_text(wanted, encoding="utf-8")
    return found


if __name__ == "__main__":
    write = "--write" in sys.argv[1:]
    wrong = differing(write)
    print(f"written: {', '.join(wrong)}" if wrong and write else f"differ: {', '.join(wrong)}" if wrong else "equal")
    sys.exit(bool(wrong) and not write)
