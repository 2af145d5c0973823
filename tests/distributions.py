"""What a source distribution and a wheel of cutaway must be; as a script, checks those in a folder (`make dist`)."""

from __future__ import annotations

import email
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
MADE = {"PKG-INFO", "setup.cfg"}  # what a source distribution has and the repository has not


def tree(folder: Path = ROOT) -> set[str]:
    """The project's files, below `folder`: what git holds; where there is none, all that .gitignore does not name."""
    below = folder.relative_to(ROOT)
    if (ROOT / ".git").exists() and shutil.which("git"):
        said = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
        if said.returncode == 0:
            names = (Path(name) for name in said.stdout.split("\0") if name and (ROOT / name).is_file())
            return {name.as_posix() for name in names if name.is_relative_to(below)}
    patterns = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").split()] + [".git"]

    def ours(name: str) -> bool:
        return not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

    found = set()
    for path, folders, files in os.walk(folder):
        folders[:] = filter(ours, folders)
        found |= {(Path(path) / name).relative_to(ROOT).as_posix() for name in filter(ours, files)}
    return found - MADE


def check_source(path: Path) -> None:
    """A source distribution has every file of the project, and no other."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if not archive.getmember(name).isdir()}
    names = {name for name in names if ".egg-info/" not in name} - MADE
    assert names == tree(), f"{path.name}: missing {sorted(tree() - names)}, too much {sorted(names - tree())}"


def check_wheel(path: Path) -> None:
    """A wheel has every file of the package, the licences, kernels that any Python finds, and a page without holes."""
    with zipfile.ZipFile(path) as archive:
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        packed = {name for name in names if ".dist-info/" not in name}
        of_it = {name.partition(".dist-info/")[2]: name for name in names if ".dist-info/" in name}
        for words in ("LICENSE", "NOTICE"):
            assert archive.read(of_it[f"licenses/{words}"]) == (ROOT / words).read_bytes()
        assert "cutaway = cutaway.cli:main" in archive.read(of_it["entry_points.txt"]).decode()
        metadata = email.message_from_bytes(archive.read(of_it["METADATA"]))
        tags = email.message_from_bytes(archive.read(of_it["WHEEL"])).get_all("Tag") or []
        libraries = {name: archive.read(name) for name in packed if ".so" in name}
    kernels = {"cutaway/native/kernels.so", "cutaway/native/kernels_avx2.so"}
    # another one would be OpenMP, a second one beside torch's
    assert libraries.keys() in (set(), kernels), "a library is bundled, or one of the kernels' is missing"
    assert packed - libraries.keys() == tree(ROOT / "cutaway")
    assert len(tags) == 1 and path.name.endswith(f"-{tags[0]}.whl")
    assert re.fullmatch(r"py3-none-(linux|manylinux_2_28)_x86_64" if libraries else "py3-none-any", tags[0])
    for library in libraries.values():
        assert re.search(rb"\0_?Py[A-Z_]\w+\0", library) is None, "the kernels need a Python of their own"
        assert max(map(int, re.findall(rb"GLIBC_2\.(\d+)", library))) <= 28
    assert metadata["Description-Content-Type"] == "text/markdown"
    check_page(metadata.get_payload(decode=False))


def check_page(description: object) -> None:
    """On a package page nothing lies beside the text: each link and picture is an address of its own."""
    assert isinstance(description, str)
    tokens = [part for token in MarkdownIt().parse(description) for part in (token.children or ())]
    targets = [part.attrGet("href") or part.attrGet("src") for part in tokens if part.type in ("link_open", "image")]
    assert [target for target in targets if not str(target).startswith(("https://", "#"))] == []
    assert "](" not in "".join(part.content for part in tokens if part.type == "text")
    assert "AutoModelForSequenceClassification.from_pretrained(name)" in description


def main(folder: Path) -> None:
    source, wheel = sorted(folder.iterdir(), key=lambda path: path.suffix)
    check_source(source)
    check_wheel(wheel)
    sys.stdout.write(f"{source}: {len(tree())} files, all of the project\n{wheel}: complete\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
