"""What type checkers and editors see: stubs that equal the tables of names, and a user's program."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import stubs

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# Lines with `: Any` or `-> Any`. The number only falls: whoever types a signature lowers it.
MOST_ANY = 348  # 16 are a callback's events, which a subclass gives what arguments it likes


@pytest.mark.parametrize("package", stubs.PACKAGES)
def test_a_stub_says_what_the_table_of_names_says(package):
    path = stubs.path_of(package)
    assert path.read_text(encoding="utf-8") == stubs.stub(package), "run `python tests/stubs.py --write`"


@pytest.mark.parametrize("package", stubs.PACKAGES)
def test_a_stub_names_what_is_there(package):
    for name, home in stubs.homes(package).items():
        made, there = getattr(importlib.import_module(package), name), importlib.import_module(home)
        assert made is getattr(there, name, None) or made is getattr(there, made.__name__)


def test_each_task_has_an_overload_of_its_class():
    from cutaway.pipelines.factory import ALIASES, T5_PAIRS, TASKS, pipeline

    typed = {}
    for overload in typing.get_overloads(pipeline):
        hints = overload.__annotations__
        for task in re.findall(r"'([^']+)'|\"([^\"]+)\"", hints["task"]):
            typed["".join(task)] = hints["return"]
    expected = {name: task.pipeline for name, task in TASKS.items()}
    expected |= {other: TASKS[name].pipeline for other, name in ALIASES.items()}
    expected |= dict.fromkeys(T5_PAIRS, "TranslationPipeline")
    assert typed == expected


def expected_errors(path: Path) -> dict[int, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {
        number: found[1]
        for number, line in enumerate(lines, 1)
        if (found := re.search(r"# mypy: ([\w-]+)$", line)) is not None
    }


@pytest.mark.slow
def test_a_users_program_passes_mypy_strict_and_mistakes_are_found():
    files = [HERE / "user_program.py", HERE / "user_mistakes.py"]
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "--no-pretty"]
    said = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert not said.stderr
    found: dict[str, dict[int, str]] = {}
    for line in said.stdout.splitlines():
        if (error := re.match(r"(.+?):(\d+): error: .*\[([\w-]+)\]$", line)) is not None:
            found.setdefault(Path(error[1]).name, {})[int(error[2])] = error[3]
    assert found == {"user_mistakes.py": expected_errors(files[1])}, said.stdout


def test_signatures_without_a_type_grow_fewer():
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "cutaway").rglob("*.py"))]
    count = sum(bool(re.search(r": Any|-> Any", line)) for text in sources for line in text.splitlines())
    assert count <= MOST_ANY
