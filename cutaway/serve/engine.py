"""The engine: what computes for all models, in short turns, and gives each source of work the same share of time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from cutaway.nn.call_context import calling_before_passes

logger = logging.getLogger("cutaway.serve")
Result = TypeVar("Result")


class Source(Protocol):
    """Something with work for the engine."""

    def turn(self) -> bool:
        """Do a small part of what is waiting; whether there was any."""

    def fail(self, error: BaseException) -> None:
        """Tell everybody who waits that there will be no answer."""


class Engine:
    """Gives the next turn to the source that has had least time of those with work, and sleeps while none has any.

    After an explanation of seconds, texts are written for as many seconds before the next explanation: turns one by one
    would give a text one token an explanation. Who had no work for a while is first, and has nothing left over from it.

    A model is used by this thread alone: a recorder that one request needs never sees another's numbers, and the
    threads of torch are not asked for twice.
    """

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self._had: dict[Source, float] = {}  # seconds of each, those that it let pass while it had no work included
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
            if not self.turn():
                self._wake.wait(timeout=1.0)

    def turn(self) -> bool:
        """One turn of the source that has had least; whether any had work."""
        had = self._had
        for source in sorted(self.sources, key=lambda source: had.get(source, 0.0)):
            begun = time.perf_counter()
            try:
                worked = source.turn()
            except Exception as error:
                logger.exception("a turn of %s failed", type(source).__name__)
                source.fail(error)
                worked = True
            if worked:
                least = had.get(source, 0.0)  # of those with work: the ones before it had none
                for other in self.sources:
                    had[other] = max(had.get(other, 0.0), least)
                had[source] += time.perf_counter() - begun
                return True
        return False


SLICE = 0.05  # seconds that a job computes in one turn, and the pass that they end in


class Left(BaseException):
    """Raised within a job that nobody waits for any more; no `except Exception` of a library holds it up."""


class Job(Future[Result]):
    """A piece of work and what comes of it. `left`: nobody waits for it; it ends before its next pass of a model."""

    def __init__(self, work: Callable[[], Result]) -> None:
        super().__init__()
        self.work, self.left = work, False


class Jobs:
    """Whole pieces of work, one after another: an explanation, an answer of an encoder-decoder.

    They run in a thread of their own, and only while the engine waits for it: a job of many passes stops before a pass
    when its turn is over, others have theirs, and it goes on from there. So each model is used by one thread at a time.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.waiting: deque[Job[Any]] = deque()
        self.running: Job[Any] | None = None
        self._go, self._stopped = threading.Event(), threading.Event()  # one of the two threads runs, the other waits
        self._until = 0.0
        self._over = False
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], Result]) -> Job[Result]:
        """Have `work` called; a job that is cancelled before its turn is never called."""
        job = Job(work)
        self.waiting.append(job)
        self.engine.wake()
        return job

    def turn(self) -> bool:
        while self.running is None:
            if not self.waiting:
                return False
            job = self.waiting.popleft()
            if not job.left and job.set_running_or_notify_cancel():
                self.running = job
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="cutaway-jobs", daemon=True)
            self._thread.start()
        self._go.set()
        self._stopped.wait()
        self._stopped.clear()
        return True

    def _work(self) -> None:
        """The thread of the jobs."""
        with calling_before_passes(self._before_pass):
            while True:
                self._next_turn()
                job = self.running
                if job is None:  # see `fail`
                    return
                try:
                    job.set_result(job.work())
                except Left:
                    job.set_exception(RuntimeError("Nobody waited for the answer any more."))
                except BaseException as error:  # handed to whoever waits for it
                    job.set_exception(error)
                self.running = job = None
                self._stopped.set()
                if self._over:
                    return

    def _next_turn(self) -> None:
        self._go.wait()
        self._go.clear()
        self._until = time.perf_counter() + SLICE

    def _before_pass(self) -> None:
        if time.perf_counter() >= self._until:
            self._stopped.set()
            self._next_turn()
        if self.running is not None and self.running.left:
            raise Left

    def fail(self, error: BaseException) -> None:
        while self.waiting:
            job = self.waiting.popleft()
            if job.set_running_or_notify_cancel():
                job.set_exception(error)
        if self._thread is not None:  # whatever runs ends before its next pass, and the thread with it
            if self.running is not None:
                self.running.left = True
            self._over = True
            self._go.set()
            self._thread.join(timeout=30)
            self.running, self._thread, self._over = None, None, False
            self._go, self._stopped = threading.Event(), threading.Event()
