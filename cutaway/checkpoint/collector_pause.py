"""Python's cycle collector, at rest while a checkpoint is loaded.

Modules, classes and a vocabulary are many thousands of new objects that stay. The collector answers them by looking at
all objects that live, of which torch's import alone leaves 170,000: a tenth of a second, and nothing is found to free.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cutaway.locks.fork_lock import ForkLock

_lock = ForkLock()
_pauses = 0
_was_on = False


@contextmanager
def collector_paused() -> Iterator[None]:
    """Collect no cycles until the end of this, or of the last of several that overlap, in whatever threads.

    Also a decorator. Where the collector was off already, it stays off.
    """
    global _pauses, _was_on
    with _lock:
        if _pauses == 0:
            _was_on = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if _pauses == 0 and _was_on:
                gc.enable()


def _forked() -> None:
    """In a child made by fork no pause goes on: the threads that would end them are the parent's."""
    global _pauses
    if _pauses and _was_on:
        gc.enable()
    _pauses = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
