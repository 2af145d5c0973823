"""What `make` would do, without doing it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "cutaway" / "native"


def planned(venv: Path, *arguments: str) -> str:
    """The commands of `make test` in an environment that is there."""
    command = ["make", "--dry-run", f"VENV={venv}", *arguments, "test"]
    # the make that runs these tests hands its own variables on
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_an_edit_of_a_kernel_builds_the_kernels_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", ".installed-run", ".installed-dev", ".built-kernels"):
        (tmp_path / name).touch()
    assert "build_ext" not in planned(tmp_path) and "pytest" in planned(tmp_path)
    for source in (*NATIVE.glob("*.c"), *NATIVE.glob("*.h")):
        plan = planned(tmp_path, f"--what-if={source.relative_to(ROOT)}")
        assert "setup.py -q build_ext --inplace" in plan and "pip install" not in plan
        assert plan.index("build_ext") < plan.index("-m pytest")


def test_a_fresh_clone_is_installed_before_its_kernels_are_looked_at(tmp_path: Path) -> None:
    plan = planned(tmp_path / "venv")
    assert plan.index("pip install") < plan.index("build_ext") < plan.index("-m pytest")
