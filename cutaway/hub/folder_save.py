"""Saving several files into one folder so that it holds all of the old ones or all of the new ones, whatever happens.

The files are written into a hidden folder inside it and synced, together with a list of them and of those that no
longer count. Then that folder gets its final name: in this one act the save has happened. What is left is to move the
files to their places, and whoever finds it unfinished (the next save, or the next load) finishes it. Where that cannot
be done, because the folder cannot be written, the files are read from where they are.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from cutaway.errors import CheckpointError, OutputError
from cutaway.jsonfile import disk_errors, read_json, sync_file, sync_folder, usual_rights
from cutaway.locks.output_lock import WAIT, OutputLock

PENDING = ".cutaway-save"  # a save that has happened, and whose files are on their way
ASIDE = ".cutaway-saving-"  # begins the name of one that has not
LIST = "save.json"
LOCK = ".cutaway-save.lock"
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

_open = threading.local()  # .saves: the saves of this thread by their folder


@dataclass
class FolderSave:
    """A save that is being made: write the files into `aside`, with the names that they are to have in `folder`."""

    folder: Path
    aside: Path
    gone: set[str] = field(default_factory=set)
    failed: bool = False

    def write_text(self, name: str, text: str) -> None:
        """Write a file as UTF-8."""
        (self.aside / name).write_text(text, encoding="utf-8")

    def remove(self, *names: str) -> None:
        """These files of an earlier save do not belong to this one, unless it writes them."""
        self.gone.update(names)


@dataclass(frozen=True)
class PendingSave:
    """A save whose files are not yet in their places: `files` are in `folder`, `gone` are those that do not count."""

    folder: Path
    files: frozenset[str]
    gone: frozenset[str]


@contextlib.contextmanager
def folder_save(folder: str | os.PathLike[str]) -> Iterator[FolderSave]:
    """Save files into `folder` (made if needed), all or none.

    A save of the same folder inside, or of the one aside, joins the outer one.

    Raises:
        OutputError: another process has been saving there for half a minute.
        OSError: the disk is full, or the folder cannot be written; it is as it was.
    """
    folder = Path(folder)
    key = os.path.realpath(folder)
    saves: dict[str, FolderSave] = _open.__dict__.setdefault("saves", {})
    if (outer := saves.get(key)) is not None:
        try:
            yield outer
        except BaseException:
            outer.failed = True
            raise
        return
    folder.mkdir(parents=True, exist_ok=True)
    with OutputLock(folder, file=folder / LOCK, wait=WAIT):
        _finish(folder)
        for left in folder.glob(f"{ASIDE}*"):  # of a process that was killed: only one saves at a time
            shutil.rmtree(left, ignore_errors=True)
        save = FolderSave(folder, Path(tempfile.mkdtemp(prefix=ASIDE, dir=folder)))
        keys = (key, os.path.realpath(save.aside))
        saves.update(dict.fromkeys(keys, save))
        try:
            with disk_errors(folder):
                yield save
            if save.failed:
                raise OutputError(f"{folder}: a part of the save failed, so nothing of it was kept.")
            _commit(save)
        finally:
            for key in keys:
                del saves[key]
            shutil.rmtree(save.aside, ignore_errors=True)


@contextlib.contextmanager
def saved_directly(folder: Path) -> Iterator[None]:
    """Inside, `folder_save(folder)` writes into `folder` itself, which is one that somebody else makes whole."""
    saves: dict[str, FolderSave] = _open.__dict__.setdefault("saves", {})
    key = os.path.realpath(folder)
    saves[key] = FolderSave(folder, folder)
    try:
        yield
    finally:
        del saves[key]


def finish_pending(folder: Path) -> PendingSave | None:
    """Finish a save of `folder` that was cut off after it had happened; what is pending where that cannot be done.

    Raises:
        CheckpointError: its list is damaged.
        OutputError: another process has been at work on it for half a minute.
    """
    if not (folder / PENDING / LIST).is_file():
        return None
    try:
        with OutputLock(folder, file=folder / LOCK, wait=WAIT):
            _finish(folder)
    except OutputError:
        raise
    except OSError as e:
        if e.errno not in _READ_ONLY:
            raise
        files, gone = _listed(folder)
        return PendingSave(folder / PENDING, frozenset(files), frozenset(gone))
    return None


def _commit(save: FolderSave) -> None:
    """Make what was written aside the save that counts, and move it into place."""
    folder, aside = save.folder, save.aside
    files = sorted(path.relative_to(aside).as_posix() for path in aside.rglob("*") if path.is_file())
    gone = sorted(name for name in save.gone - set(files) if (folder / name).is_file())
    for name in files:
        usual_rights(aside / name)
        sync_file(aside / name)
    if len(files) == 1 and not gone and "/" not in files[0]:  # one rename is whole by itself
        (aside / files[0]).replace(folder / files[0])
        sync_folder(folder)
        return
    (aside / LIST).write_text(json.dumps({"files": files, "gone": gone}, indent=1) + "\n", encoding="utf-8")
    sync_file(aside / LIST)
    for inner in (*(path for path in aside.rglob("*") if path.is_dir()), aside):
        usual_rights(inner)  # mkdtemp makes it private, and others may have to read from it
        sync_folder(inner)
    aside.rename(folder / PENDING)
    sync_folder(folder)
    _finish(folder)


def _finish(folder: Path) -> None:
    """Move the files of a save that has happened into their places; it may be begun again wherever it was cut off."""
    pending = folder / PENDING
    if not pending.is_dir():
        return
    if (pending / LIST).is_file():
        files, gone = _listed(folder)
        folders = {folder}
        for name in files:
            source, target = pending / name, folder / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                folders.add(target.parent)
                source.replace(target)
        for name in gone:
            (folder / name).unlink(missing_ok=True)
        for inner in folders:
            sync_folder(inner)
        (pending / LIST).unlink()
    for inner in sorted((path for path in pending.rglob("*") if path.is_dir()), reverse=True):
        inner.rmdir()
    pending.rmdir()


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """(files, gone) of a save; the list may come from elsewhere, so no name in it may lead out of the folder."""
    path = folder / PENDING / LIST
    fields = read_json(path, CheckpointError)
    found = []
    for key in ("files", "gone"):
        names = fields.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) and _inside(folder, name) for name in names):
            raise CheckpointError(
                f"{path}: {key!r} must list files of this folder. Remove {path.parent}, or save anew."
            )
        found.append(names)
    return found[0], found[1]


def _inside(folder: Path, name: str) -> bool:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if not name or "\0" in name or posix.is_absolute() or windows.drive or windows.root:
        return False
    if ".." in posix.parts or ".." in windows.parts or posix.parts[:1] == (PENDING,):
        return False
    return (folder / name).parent.resolve().is_relative_to(folder.resolve())
