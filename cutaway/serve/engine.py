"""The engine: one thread that computes for all models, in small turns, so that none waits long for another."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

logger = logging.getLogger("cutaway.serve")
Result = TypeVar("Result")


class Source(Protocol):
    """Something with work for the engine."""

    def turn(self) -> bool:
        """Do a small part of what is waiting; whether there was any."""

    def fail(self, error: BaseException) -> None:
        """Tell everybody who waits that there will be no answer."""


class Engine:
    """Gives each source its turn, one after another, and sleeps while none has work.

    A model is used by this thread alone: a recorder that one request needs never sees another's numbers, and the
    threads of torch are not asked for twice.
    """

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, source: Source) -> None:
        self.sources.append(source)

    def start(self) -> None:
        """Begin, if it has not begun."""
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="cutaway-engine", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """There is work."""
        self._wake.set()

    def close(self) -> None:
        """End the thread; whoever still waits gets an error."""
        self._closed = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=30)
        for source in self.sources:
            source.fail(RuntimeError("The server is closing."))

    def _run(self) -> None:
        while not self._closed:
            self._wake.clear()  # what comes from here on wakes it again
            worked = False
            for source in self.sources:
                try:
                    worked |= source.turn()
                except Exception as error:
                    logger.exception("a turn of %s failed", type(source).__name__)
                    source.fail(error)
            if not worked:
                self._wake.wait(timeout=1.0)


class Jobs:
    """Whole pieces of work that need a model to themselves: an explanation, an answer of an encoder-decoder."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Have `work` called by the engine; a future that is cancelled before its turn is never called."""
        future: Future[Result] = Future()
        self.waiting.append((future, work))
        self.engine.wake()
        return future

    def turn(self) -> bool:
        if not self.waiting:
            return False
        future, work = self.waiting.popleft()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:  # handed to whoever waits for it
                future.set_exception(error)
        return True

    def fail(self, error: BaseException) -> None:
        while self.waiting:
            future, _ = self.waiting.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
