"""The documents are true: each command and piece of code in them runs, offline, and prints what they say.

In ```python blocks of one file the names carry on from block to block. In ```console blocks a line that starts with
`$ ` is run and the lines under it are what it must print; a ```text block under ```python is what that must print.
`...` stands for anything, and runs of white space are equal, as in doctest. Only what changes the machine itself
(`pip`, `git`, `cd`) is not run, and `make TARGET` is checked to be a target.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "console", "text", "json"}  # bash and sh would hide a command from this test
NOT_RUN = ("pip ", "git ", "cd ")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Block:
    """One fenced block: its language, its first line in the page, its text."""

    language: str
    line: int
    text: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    inside: Block | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("```"):
            if inside is None:
                inside = Block(line[3:].strip(), number + 1, "")
            else:
                found.append(inside)
                inside = None
        elif inside is not None:
            inside.text += line + "\n"
    assert inside is None, "a block is not closed"
    return found


def same(expected: str, printed: str) -> bool:
    return doctest.OutputChecker().check_output(expected, printed, FLAGS)


def commands(text: str) -> list[tuple[str, str]]:
    """(command, what it must print) of a ```console block."""
    steps: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], ""))
        elif line.strip():
            command, output = steps[-1]
            steps[-1] = command, output + line + "\n"
    return steps


def run_command(command: str, expected: str, folder: Path, where: str) -> None:
    """Run one line of a ```console block in `folder`, with `cutaway` on the path."""
    if command.startswith(NOT_RUN):
        return
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    if command.startswith("make"):
        for target in re.sub(r"#.*", "", command).split()[1:]:
            assert re.search(rf"^{re.escape(target)}:.* ## ", (ROOT / "Makefile").read_text(), re.M), (
                f"{where}: {target}"
            )
        return
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{where}: {command}\n{done.stdout}{done.stderr}"
    assert not expected or same(expected, done.stdout), (
        f"{where}: {command}\nexpected:\n{expected}\ngot:\n{done.stdout}"
    )


def run_python(block: Block, scope: dict[str, object], page: Path) -> str:
    """Run a ```python block and return what it printed; a traceback names the line of the page."""
    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, scope)
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, own in (("python", ""), ("cutaway", "-m cutaway"), ("torchrun", "-m torch.distributed.run")):
        shim = tmp_path / name  # the package under test and its python, whatever else is installed
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} {own} "$@"\n')
        shim.chmod(0o755)
    scope: dict[str, object] = {"__name__": "__main__"}
    before = ("", "")
    for block in blocks(page.read_text(encoding="utf-8")):
        where = f"{page.name}:{block.line}"
        assert block.language in LANGUAGES, f"{where}: a block of {block.language!r} would not be run"
        if block.language == "console":
            for command, expected in commands(block.text):
                run_command(command, expected, tmp_path, where)
        elif block.language == "python":
            before = ("python", run_python(block, scope, page))
            continue
        elif block.language == "text" and before[0] == "python":
            assert same(block.text, before[1]), f"{where}: expected:\n{block.text}\ngot:\n{before[1]}"
        before = ("", "")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


def test_a_false_page_is_caught(tmp_path: Path) -> None:
    [code, output] = blocks("```python\nprint(6 * 7)\n```\n\n```text\n41\n```\n")
    assert not same(output.text, run_python(code, {}, Path("page.md")))
    with pytest.raises(AssertionError, match="false"):
        run_command("false", "", tmp_path, "page:1")
    with pytest.raises(AssertionError, match="expected"):
        run_command("echo one", "two\n", tmp_path, "page:1")
    with pytest.raises(AssertionError, match="no-such-target"):
        run_command("make no-such-target", "", tmp_path, "page:1")
    assert commands("$ a\nx\n$ b\n") == [("a", "x\n"), ("b", "")]
