"""Reading JSON that came with a checkpoint, within bounds, and writing JSON without ever leaving half a file.

A file from elsewhere can be large, deep, or say the same thing twice. Everything is bounded before it is parsed, so a
hostile file costs neither time nor memory.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from cutaway.errors import CutawayError, InputError
from cutaway.locks.output_lock import WAIT, OutputLock

MEGABYTE = 1 << 20
MAX_DEPTH = 64


def parse_json(
    data: bytes,
    where: str,
    error: type[CutawayError],
    *,
    max_bytes: int = 4 * MEGABYTE,
    max_values: int = 1_000_000,
) -> dict[str, Any]:
    """Parse one JSON object from UTF-8 `data`; `where` names the source in the message of `error`.

    Refused: more than `max_bytes`, more than `max_values` values, nesting deeper than 64, a key twice in one object,
    NaN and Infinity (JSON has neither), and anything that is not an object at the top.
    """
    if len(data) > max_bytes:
        raise error(f"{where} is {len(data):,} bytes; at most {max_bytes:,} are read. Is it the right file?")
    # Every value but the first in its container follows a comma, so this bounds what parsing allocates.
    values = data.count(b",") + data.count(b"{") + data.count(b"[")
    if values > max_values:
        raise error(f"{where} holds about {values:,} values; at most {max_values:,} are read. Is it the right file?")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise error(f"{where} names the field {twice[:80]!r} twice; remove one.")
        return found

    def constant(token: str) -> NoReturn:
        raise error(f"{where} holds {token}, which is not JSON; write a number or null.")

    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique, parse_constant=constant)
    except CutawayError:
        raise
    except RecursionError:
        raise error(f"{where} is nested deeper than {MAX_DEPTH} levels.") from None
    except (ValueError, UnicodeDecodeError) as e:
        raise error(f"{where} is not valid JSON: {e}. Is the file complete?") from None
    if not isinstance(value, dict):
        raise error(f"{where} holds a JSON {type(value).__name__}, not an object with fields.")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return value
    raise error(f"{where} is nested deeper than {MAX_DEPTH} levels.")


def read_json(
    path: str | os.PathLike[str],
    error: type[CutawayError],
    *,
    max_bytes: int = 4 * MEGABYTE,
    max_values: int = 1_000_000,
) -> dict[str, Any]:
    """Read one JSON object from a file, within the bounds of `parse_json`; the size is checked before reading."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as e:
        raise error(f"{path} cannot be read: {e.strerror or e}.") from None
    if len(data) > max_bytes:
        raise error(f"{path} is larger than {max_bytes:,} bytes, the most that is read. Is it the right file?")
    return parse_json(data, str(path), error, max_bytes=max_bytes, max_values=max_values)


def write_aside(path: str | os.PathLike[str], write: Callable[[Path], object], *, sync: bool = True) -> None:
    """Call `write` with a temporary path of the same name, then rename it to `path`: readers see the old or the new.

    With `sync` that also holds for a power cut. Writers of one path take turns, threads and processes alike; what one
    that was killed left aside is removed.

    Raises:
        OutputError: another process has been writing `path` for half a minute.
        OSError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    with OutputLock(path, wait=WAIT):
        for left in path.absolute().parent.glob(f".{glob.escape(path.name)}.*.part"):
            shutil.rmtree(left, ignore_errors=True)
        # a folder, since libraries that write a file put another beside it
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        aside = folder / path.name
        try:
            with disk_errors(path):
                write(aside)
            usual_rights(aside)
            if sync:
                sync_file(aside)
            aside.replace(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if sync:
            sync_folder(path.absolute().parent)


def require_folder(path: str | os.PathLike[str]) -> None:
    """InputError unless the folder is there that a file to write belongs into."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path}: there is no folder {folder}.")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def usual_rights(path: Path) -> None:
    """Let others read what a library made private, as the user's umask says."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def sync_file(path: Path) -> None:
    """Return when the file's content is on the disk."""
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Return when the names in the folder are on the disk."""
    if os.name != "nt":  # Windows opens no folder, and writes names by itself
        sync_file(path)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Inside, what the safetensors library says of the disk becomes the OSError that it is."""
    try:
        yield
    except Exception as e:
        code = re.search(r"\b(?:code: |os error )(\d+)", str(e))
        if type(e).__name__ != "SafetensorError" or code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _shown(value: object) -> object:
    """What stands in JSON for a value that JSON cannot hold."""
    if hasattr(value, "to_diff_dict"):
        return value.to_diff_dict()
    if type(value).__module__ == "torch" and type(value).__name__ == "dtype":
        return str(value).removeprefix("torch.")
    return f"<{type(value).__name__}>"


def dump_fields(fields: dict[str, Any]) -> str:
    """Fields as the text of a JSON file, sorted; a value that JSON cannot hold, such as a module, as its class."""
    try:
        return json.dumps(fields, indent=2, sort_keys=True, default=_shown, skipkeys=True) + "\n"
    except TypeError:  # keys of a user's own dict that cannot be ordered
        return json.dumps(fields, indent=2, default=_shown, skipkeys=True) + "\n"


def plain_value(value: object) -> Any:
    """For `json.dumps(default=)`: a configuration or a dtype as JSON can hold it; TypeError for anything else."""
    if (shown := _shown(value)) != f"<{type(value).__name__}>":
        return shown
    raise TypeError(type(value).__name__)
