"""The process that chat templates run in: started at the first one, kept for the next, ended where one goes too far.

A template is somebody else's program. Jinja's sandbox keeps it from reaching anything; what it costs is bounded by the
operating system, which no trick inside the language gets around: seconds of computing, bytes of memory, characters of
text. The bounds grow with the conversation, and published templates stay under a hundredth of them.
"""

from __future__ import annotations

import atexit
import contextlib
import marshal
import os
import select
import signal
import subprocess
import sys
import threading
from multiprocessing import spawn
from pathlib import Path
from typing import Any

from cutaway.errors import TokenizerError
from cutaway.tokenization import chat_sandbox
from cutaway.tokenization.chat_sandbox import DONE, FAILED, INVALID, SIZE

SECONDS = 0.75  # of computing, for one text; and so much more for each megabyte of the conversation:
SECONDS_PER_MEGABYTE = 0.1
MEMORY = 128 * 2**20  # bytes beyond what the process holds at its start, and so many for each byte of the conversation:
MEMORY_PER_BYTE = 24
MOST_CHARACTERS = 10_000_000  # of the text, beyond those of the conversation
_PATIENCE = 60.0  # seconds until a process that does not answer, and does not compute either, is ended


def run(template: str, variables: dict[str, Any]) -> str:
    """The text that a template makes of plain data.

    Raises:
        TokenizerError: the template is not Jinja, fails, or costs more than the bounds.
    """
    try:
        data = marshal.dumps((template, variables))
    except ValueError:
        raise TokenizerError("The conversation is nested too deeply for a chat template; make it flat.") from None
    size = len(data)
    seconds = SECONDS + SECONDS_PER_MEGABYTE * size / 2**20
    memory, characters = MEMORY + MEMORY_PER_BYTE * size, MOST_CHARACTERS + size
    request = marshal.dumps((template, variables, seconds, memory, characters))
    with _lock:
        try:
            status, text = _started().ask(request, seconds)
        except BaseException:  # Ctrl-C too: what comes next in the pipe would belong to this request
            close()
            raise
        if status not in (DONE, FAILED, INVALID):
            close()  # gives its memory back
    if status == DONE:
        return text
    if status == INVALID:
        raise TokenizerError(f"The chat template is not valid Jinja: {text}")
    if status == FAILED:
        raise TokenizerError(f"The chat template failed: {text}")
    bound = f"{characters:,} characters of text" if text == "characters" else f"{memory / 2**20:.0f} MB of memory"
    raise _beyond(bound)


def _beyond(bound: str) -> TokenizerError:
    return TokenizerError(
        f"The chat template failed: it was stopped after {bound}, which no honest template needs. Pass chat_template= "
        "another one."
    )


class _Worker:
    """One process and the two pipes to it."""

    def __init__(self) -> None:
        self.late = False
        try:
            self.process = subprocess.Popen(
                [os.fsdecode(spawn.get_executable() or ""), "-I", "-S", str(chat_sandbox.__file__)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        except OSError as error:
            raise self._cannot(str(error.strerror or error)) from None
        self._send(marshal.dumps([str(Path(place).absolute()) for place in sys.path]))
        if self._receive(5, _PATIENCE) != b"ready":
            self.close()
            raise self._cannot("it did not answer")

    @staticmethod
    def _cannot(reason: str) -> TokenizerError:
        program = os.fsdecode(spawn.get_executable() or "")
        return TokenizerError(
            f"The process for chat templates cannot be started: {reason}. It runs {program!r}; name another Python "
            "with multiprocessing.set_executable(path)."
        )

    def ask(self, request: bytes, seconds: float) -> tuple[int, str]:
        """(status, text) as `chat_sandbox.answer` gives them."""
        self._send(request)
        wait = _PATIENCE + seconds if chat_sandbox.HAS_CLOCK else seconds
        head = self._receive(SIZE.size, wait)
        body = self._receive(SIZE.unpack(head)[0], wait) if len(head) == SIZE.size else b""
        if body:
            return body[0], str(body[1:], "utf-8", "surrogatepass")
        code = self.process.wait()
        if self.late or (chat_sandbox.HAS_CLOCK and code == -signal.SIGPROF):
            raise _beyond(f"{seconds:.2g} seconds")
        raise TokenizerError(f"The chat template failed: the process that ran it ended with code {code}.")

    def _send(self, body: bytes) -> None:
        data = memoryview(SIZE.pack(len(body)) + body)
        with contextlib.suppress(BrokenPipeError):  # then the answer is empty, and the code says why
            while data:
                data = data[os.write(self.process.stdin.fileno(), data) :]  # type: ignore[union-attr]

    def _receive(self, size: int, seconds: float) -> bytes:
        """So many bytes; fewer where the process ended, or was ended since it was silent for so many seconds."""
        place, parts = self.process.stdout.fileno(), []  # type: ignore[union-attr]
        timer = None
        if not hasattr(select, "poll"):
            timer = threading.Timer(seconds, self._give_up)
            timer.start()
        else:
            poll = select.poll()
            poll.register(place, select.POLLIN)
        while size > 0:
            if timer is None and not poll.poll(seconds * 1000):
                self._give_up()
            part = os.read(place, min(size, 2**20))
            if not part:
                break
            parts.append(part)
            size -= len(part)
        if timer is not None:
            timer.cancel()
        return b"".join(parts)

    def _give_up(self) -> None:
        self.late = True
        self.process.kill()

    def close(self) -> None:
        """End the process."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.kill()
        self.process.wait()


_lock = threading.Lock()
_worker: _Worker | None = None


def _started() -> _Worker:
    global _worker
    if _worker is None:
        _worker = _Worker()
    return _worker


def close() -> None:
    """End the process, if there is one; the next template starts another."""
    global _worker
    worker, _worker = _worker, None
    if worker is not None:
        worker.close()


def _forget() -> None:
    """In a child made by fork: the process belongs to the parent."""
    global _worker, _lock
    if _worker is not None:
        _worker.process.returncode = 0  # or its end would be waited for, and warned about
    _worker, _lock = None, threading.Lock()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
