"""The wheel holds what it must and nothing else, and runs by itself from a folder that is not the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from a copy of the tree (a build leaves folders behind), without the network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "cutaway", source / "cutaway", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    target = tmp_path_factory.mktemp("wheel")
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(target)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=300)
    [built] = target.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        for words in ("LICENSE", "NOTICE"):
            [licence] = [name for name in archive.namelist() if name.endswith(f"licenses/{words}")]
            assert archive.read(licence) == (ROOT / words).read_bytes()
        [entry] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "cutaway = cutaway.cli:main" in archive.read(entry).decode()
    built = {name for name in packed if name.startswith("cutaway/native/kernels.") and name.endswith(".so")}
    assert len(built) <= 1  # none without a compiler
    packed -= built
    files = (
        p for p in (ROOT / "cutaway").rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".so"
    )
    assert packed == {p.relative_to(ROOT).as_posix() for p in files}
    assert "cutaway/py.typed" in packed


def test_the_wheel_runs_by_itself(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True, timeout=300)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"},
            cwd=elsewhere,
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.stdout

    assert Path(run("-c", "import cutaway; print(cutaway.__file__)").strip()).is_relative_to(site)
    if (ROOT / "cutaway" / "__main__.py").exists():
        assert "explain" in run("-m", "cutaway", "--help")
    if (ROOT / "cutaway" / "builtin" / "sentiment").is_dir() and (ROOT / "cutaway" / "pipelines").is_dir():
        code = "from cutaway import pipeline; print(pipeline('sentiment-analysis', 'cutaway/sentiment')('Wonderful.'))"
        assert "'label': 'POSITIVE'" in run("-c", code)
