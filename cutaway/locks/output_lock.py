"""One writer at a time for an output, among threads and processes; a process that dies lets go of what it held.

The lock is the operating system's, on a small hidden file that says who holds it. The system lets go when the process
ends, however it ends, so a file that a kill left behind stops nobody; whoever takes the lock next removes it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cutaway.errors import OutputError

log = logging.getLogger("cutaway")

WAIT = 30.0  # seconds that a short write waits for another one of the same output
_PAUSE = 0.02  # seconds between two tries
_BUSY = (errno.EACCES, errno.EAGAIN)
_WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass
class _Held:
    file: int
    thread: int
    count: int
    since: str


# Locks of this process by the lock file's path. Asking the system would not do: its locks are the process's, not a
# thread's, and closing any handle of the file would let go of them.
_held: dict[str, _Held] = {}
_guard = threading.Lock()


class OutputLock:
    """The right to write `output`; a context manager.

    Args:
        output: what is written, for the message.
        file: the lock file; `.NAME.lock` beside `output` by default.
        wait: seconds to wait for another holder.
        again: whether the thread that holds it may take it again.
    """

    def __init__(
        self, output: str | Path, *, file: str | Path | None = None, wait: float = 0.0, again: bool = False
    ) -> None:
        self.output = Path(output)
        absolute = self.output.absolute()
        chosen = Path(file) if file is not None else absolute.with_name(f".{absolute.name}.lock")
        self.file = Path(os.path.realpath(chosen.parent)) / chosen.name
        self.wait, self.again = wait, again
        self._mine = 0

    def acquire(self) -> Self:
        """Take the lock.

        Raises:
            OutputError: another thread or process holds it; the message says which, and since when.
        """
        until = time.monotonic() + self.wait
        while (holder := self._try()) is not None:
            if time.monotonic() >= until:
                raise OutputError(
                    f"{self.output} is being written by {holder}. Wait until it is done (or end it), or name another "
                    "output."
                )
            time.sleep(_PAUSE)
        self._mine += 1
        return self

    def release(self) -> None:
        """Let go of the lock, if it is held."""
        with _guard:
            held = _held.get(str(self.file))
            if not self._mine or held is None:
                return
            self._mine -= 1
            held.count -= 1
            if held.count:
                return
            del _held[str(self.file)]
            if os.name == "nt":  # an open file cannot be removed there
                os.close(held.file)
                with contextlib.suppress(OSError):
                    self.file.unlink()
            else:  # removed while it is locked: whoever has opened it sees that it is gone
                with contextlib.suppress(OSError):
                    self.file.unlink()
                os.close(held.file)

    def _try(self) -> str | None:
        """Take the lock if it is free; else who holds it."""
        with _guard:
            held = _held.get(str(self.file))
            if held is not None:
                if self.again and held.thread == threading.get_ident():
                    held.count += 1
                    return None
                return f"this process ({os.getpid()}) already, since {held.since}"
            while True:
                file = os.open(self.file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
                try:
                    if not _lock(file, self.file):
                        who = _who(file)
                        os.close(file)
                        return who
                    if _same(file, self.file):
                        break
                except BaseException:
                    os.close(file)
                    raise
                os.close(file)  # its holder removed it between our opening and our locking
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            with contextlib.suppress(OSError):  # on a full disk the lock holds without a name in it
                os.ftruncate(file, 0)
                os.write(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode())
            _held[str(self.file)] = _Held(file, threading.get_ident(), 1, since)
            return None

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def _lock(file: int, path: Path) -> bool:
    """Ask the system for the lock, without waiting; whether it gave it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, 1 << 30, os.SEEK_SET)  # far behind what the file says, which others read
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            os.lseek(file, 0, os.SEEK_SET)
        else:
            import fcntl

            # a record lock: forked workers do not inherit it, so that it ends with this process and not with theirs
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in _BUSY:
            return False
        if e.errno not in _WITHOUT:
            raise
        log.warning("%s: this file system has no locks; do not write to one output from two processes.", path.parent)
    return True


def _same(file: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(file)
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)


def _who(file: int) -> str:
    try:
        text = b""
        for _ in range(10):  # whoever has just got it is about to write its name
            if text := os.read(file, 4096):
                break
            time.sleep(_PAUSE / 2)
        said = json.loads(text)
        host = "" if said["host"] == socket.gethostname() else f" on {str(said['host'])[:80]}"
        return f"process {int(said['pid'])}{host}, since {str(said['since'])[:19]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _forked() -> None:
    """A forked child holds none of its parent's locks."""
    global _guard
    _guard = threading.Lock()
    for held in _held.values():
        os.close(held.file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
