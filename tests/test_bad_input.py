"""Bad input is one clear error, at once and for little memory, and the process lives on.

The cases are data in tests/bad_input; each of its modules is tried by one process.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MODULES = ("configs", "files", "weights", "calls", "caches", "texts")
SECONDS, MEGABYTES, CHARACTERS = 1.0, 300, 1000
PLANTED = "planted-by-a-pickle"


@pytest.fixture(scope="module", params=MODULES)
def module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """A module of cases, what its process printed, and the folder where it worked."""
    folder = tmp_path_factory.mktemp(request.param)
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "bad_input.run", request.param],
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, done.stdout, folder


def test_each_case_is_one_clear_error(module: tuple[str, str, Path]) -> None:
    name, printed, folder = module
    cases = {case.name: case for case in importlib.import_module(f"bad_input.{name}").CASES}
    *results, last = map(json.loads, printed.splitlines())
    assert last == {"name": "the process lives on"}
    assert [result["name"] for result in results] == list(cases)
    wrong = [found for result in results if (found := complaint(cases[result["name"]], result))]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(results)}:", *wrong])
    assert not (folder / PLANTED).exists()


def complaint(case: Any, result: dict[str, Any]) -> str:
    """What is wrong with how a case ended; "" if nothing is."""
    kind, message = next(iter(result["kinds"]), ""), result["message"]
    problems = [
        f"raised {kind or 'nothing'}, not {case.error or 'nothing'}" if kind != case.error else "",
        "no CutawayError" if kind and "CutawayError" not in result["kinds"] else "",
        f"no {case.pattern!r} in the message" if kind and not re.search(case.pattern, message) else "",
        "a long message" if len(message) > CHARACTERS else "",
        f"{result['seconds']:.1f} s" if result["seconds"] > SECONDS else "",
        f"{result['megabytes']:.0f} MB" if result["megabytes"] > MEGABYTES else "",
    ]
    found = "; ".join(p for p in problems if p)
    return f"{case.name}: {found} ({message[:200]})" if found else ""
