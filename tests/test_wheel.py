"""What is published is whole, serves every Python, and runs by itself from a folder that is not the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from distributions import ROOT, check_page, check_source, check_wheel, tree


def build(what: str, source: Path, target: Path, **environment: str) -> Path:
    """An "sdist" or a "wheel" of a folder, without the network and without an environment of its own."""
    code = f"from setuptools.build_meta import build_{what}; build_{what}({str(target)!r})"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=source,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=300,
    )
    [built] = target.iterdir()
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from a copy of the tree: a build leaves folders behind."""
    copied = tmp_path_factory.mktemp("tree")
    for name in tree():
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copied / name)
    return build("sdist", copied, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    [found] = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution."""
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def test_the_source_distribution_holds_every_file_of_the_project(source: Path) -> None:
    check_source(source)


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    check_wheel(wheel)


def test_without_a_compiler_the_wheel_is_for_every_machine(unpacked: Path, tmp_path: Path) -> None:
    copied = tmp_path / "source"
    shutil.copytree(unpacked, copied, ignore=shutil.ignore_patterns("build", "*.so"))
    (tmp_path / "wheel").mkdir()
    built = build("wheel", copied, tmp_path / "wheel", CC="/bin/false")
    assert built.name.endswith("-py3-none-any.whl")
    check_wheel(built)


def test_a_page_with_a_link_to_a_file_is_refused() -> None:
    whole = "AutoModelForSequenceClassification.from_pretrained(name)"
    check_page(f"{whole} [a](https://example.org/a)")
    for hole in ("[a](docs/a.md)", "![a](docs/a.png)", "[a](http://example.org)"):
        with pytest.raises(AssertionError):
            check_page(f"{whole} {hole}")


def test_the_wheel_runs_by_itself(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, timeout=300)
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
    assert "explain" in run("-m", "cutaway", "--help")
    said = run("-m", "cutaway", "--version")
    assert ("kernels: AVX" in said) == ("avx2" in cpu() and "linux" in wheel.name), said
    assert ("kernels: AVX-512" in said) == ("avx512_vnni" in cpu() and "linux" in wheel.name), said
    code = "from cutaway import pipeline; print(pipeline('sentiment-analysis', 'cutaway/sentiment')('Wonderful.'))"
    assert "'label': 'POSITIVE'" in run("-c", code)


def cpu() -> str:
    """What Linux says of the processor; nothing elsewhere."""
    said = Path("/proc/cpuinfo")
    return said.read_text() if said.exists() else ""
