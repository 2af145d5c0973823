"""Checkpoint folders that are whole or not there.

A checkpoint is written into a folder aside, each file is synced to the disk and its SHA-256 noted in manifest.json, and
the folder is renamed to checkpoint-N as the last act. Whatever happens before leaves older checkpoints as they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cutaway.errors import CheckpointError
from cutaway.hub.folder_save import saved_directly
from cutaway.jsonfile import MEGABYTE, disk_errors, read_json, sync_file, sync_folder, usual_rights
from cutaway.locks.output_lock import OutputLock

log = logging.getLogger("cutaway")

MANIFEST = "manifest.json"
LOCK = ".training.lock"
_NAME = re.compile(r"checkpoint-(\d{1,15})(\.old)?")
_LEFT = re.compile(r"\.checkpoint-\d+\..*\.(part|gone)")


class OutputClaim:
    """The right to train in a folder, which is made if needed. The thread that has it may take it again."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self._lock = OutputLock(output, file=output / LOCK, again=True)
        self._made = False

    def take(self) -> None:
        """Take it.

        Raises:
            OutputError: another process or thread trains there.
        """
        self._made = not self.output.exists()
        self.output.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()

    def release(self) -> None:
        """Give it back; a folder that was made for it and holds nothing goes."""
        self._lock.release()
        if self._made:
            with contextlib.suppress(OSError):
                self.output.rmdir()


@contextlib.contextmanager
def claimed(output: Path) -> Iterator[None]:
    """Inside, nobody else trains in `output`."""
    claim = OutputClaim(output)
    claim.take()
    try:
        yield
    finally:
        claim.release()


def write(output: Path, step: int, fill: Callable[[Path], None]) -> Path:
    """Let `fill` write the files of checkpoint-`step` in `output`, and make them a checkpoint; its folder.

    Whatever `fill` or the disk raises is passed on; then no trace of the checkpoint is left.
    """
    output.mkdir(parents=True, exist_ok=True)
    folder = output / f"checkpoint-{step}"
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=output))
    try:
        with saved_directly(aside), disk_errors(folder):
            fill(aside)
        files = {}
        for path in sorted(p for p in aside.rglob("*") if p.is_file()):
            usual_rights(path)
            sync_file(path)
            files[path.relative_to(aside).as_posix()] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
        (aside / MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=1) + "\n", encoding="utf-8")
        sync_file(aside / MANIFEST)
        for inner in [*(p for p in aside.rglob("*") if p.is_dir()), aside]:
            sync_folder(inner)
        usual_rights(aside)  # mkdtemp makes it private
        old = output / f"{folder.name}.old"
        if folder.exists():  # a folder cannot replace another in one act; until the second rename the old one counts
            _drop(old)
            folder.rename(old)
        aside.rename(folder)
        sync_folder(output)
        _drop(old)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None if it is whole."""
    if not (folder / MANIFEST).is_file():
        return f"it has no {MANIFEST}: it was not finished, or other software wrote it"
    try:
        files = read_json(folder / MANIFEST, CheckpointError, max_bytes=64 * MEGABYTE).get("files")
    except CheckpointError as e:
        return str(e)
    if not isinstance(files, dict) or not all(isinstance(v, dict) for v in files.values()):
        return f"its {MANIFEST} does not list files"
    for name, told in files.items():
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute() or not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != told.get("bytes"):
            return f"{name} has {path.stat().st_size:,} bytes, not {told.get('bytes'):,}: it is truncated or replaced"
        if _digest(path) != told.get("sha256"):
            return f"{name} is damaged: its SHA-256 is not the one that was noted"
    return None


def numbered(output: Path) -> list[tuple[int, Path]]:
    """(step, folder) of everything in `output` that has the name of a checkpoint, oldest first."""
    if not output.is_dir():
        return []
    found = [(_NAME.fullmatch(p.name), p) for p in output.iterdir() if p.is_dir()]
    return sorted((int(m[1]), p) for m, p in found if m)


def newest(output: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """(the newest whole checkpoint or None, the newer ones that were skipped, each with the reason)."""
    skipped: list[tuple[Path, str]] = []
    for _, folder in sorted(numbered(output), key=lambda e: (e[0], not e[1].name.endswith(".old")), reverse=True):
        why = fault(folder)
        if why is None:
            return folder, skipped
        skipped.append((folder, why))
    return None, skipped


def begin(output: Path, resume: str | bool | None) -> Path | None:
    """Make `output` ready for a training: what a kill left goes; the checkpoint to resume from, by `choose`."""
    sweep(output)
    if resume:
        return choose(output, resume)
    if numbered(output):
        log.warning("%s holds checkpoints of an earlier training. This one begins at the beginning and leaves them "
                    "there; give it a folder of its own, or resume_from_checkpoint=True.", output)  # fmt: skip
    return None


def choose(output: Path, given: str | bool) -> Path | None:
    """The checkpoint to resume from, by `True` (the newest whole one in `output`), a checkpoint, or a folder of them.

    What is skipped is said in the log of "cutaway". None where `True` finds no checkpoint at all: there is nothing to
    resume yet.

    Raises:
        CheckpointError: the one that is named is damaged, or no checkpoint is whole.
    """
    where = output if given is True else Path(str(given))
    if given is not True and _NAME.fullmatch(where.name):
        why = fault(where) if where.is_dir() else "it is no folder"
        if why is not None:
            other = newest(where.parent)[0]
            way = f"the newest whole one beside it is {other}" if other else "there is no whole one beside it"
            raise CheckpointError(f"{where} cannot be resumed: {why}; {way}.")
        return where
    found, skipped = newest(where)
    for folder, why in skipped:
        log.warning("%s is skipped: %s.", folder, why)
    if found is None and (skipped or given is not True):
        raise CheckpointError(f"{where} holds no whole checkpoint; remove what is damaged and train anew.")
    if found is None:
        log.warning("%s holds no checkpoint to resume from; the training begins at the beginning.", where)
    else:
        log.info("resuming from %s", found)
    return found


def rotate(output: Path, keep: int | None, step: int, spared: str | None) -> None:
    """Remove the oldest checkpoints until `keep` are left; that of `step` and `spared` stay.

    Those of later steps are not this training's: they are neither counted nor removed.
    """
    if keep is None:
        return
    folders = [p for n, p in numbered(output) if n <= step]
    others = [p for p in folders[:-1] if spared is None or p != Path(spared)]
    for folder in others[: max(0, len(folders) - max(1, keep))]:
        _drop(folder)


def sweep(output: Path) -> None:
    """Remove what saves and removals that were killed have left behind."""
    for _, old in numbered(output):
        new = old.with_name(old.name.removesuffix(".old"))
        if new != old and new.is_dir() and fault(new) is None:
            _drop(old)
    if output.is_dir():
        for path in [p for p in output.iterdir() if _LEFT.fullmatch(p.name)]:
            shutil.rmtree(path, ignore_errors=True)


def _drop(folder: Path) -> None:
    """Remove a checkpoint; it is out of sight before its first file goes."""
    if not folder.exists():
        return
    name = folder.name.removesuffix(".old")
    aside = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".gone", dir=folder.parent))
    folder.rename(aside / folder.name)
    shutil.rmtree(aside)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
