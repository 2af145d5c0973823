"""A lock of this process's threads that a process made by fork finds free.

A child has one thread, the one that forked. What another held at that moment would stay locked there for good: a
worker of a data loader, started while some thread loads or packs, would wait for it without end.
"""

from __future__ import annotations

import os
import threading


class ForkLock:
    """A reentrant lock, as a context manager; what it guards must be whole, or made anew, whenever a child begins."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
