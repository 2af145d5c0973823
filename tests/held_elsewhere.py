"""A context that another thread is in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def held_elsewhere(context: AbstractContextManager[object]) -> Iterator[None]:
    """Inside, another thread has entered `context`; it leaves it at the end."""
    entered, done = threading.Event(), threading.Event()

    def hold() -> None:
        with context:
            entered.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(60)
    try:
        yield
    finally:
        done.set()
        holder.join()
