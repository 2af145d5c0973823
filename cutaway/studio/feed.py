"""What streams to a page: events of long work, which the engine does a step at a time between all other work."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping

from pydantic_core import to_json

from cutaway.errors import CutawayError

logger = logging.getLogger("cutaway.serve")
MOST_WAITING = 256  # events that a page has not taken yet; tokens and what was watched come many at once


class Feed:
    """Events on their way from the engine's thread to one page, as server-sent events.

    A page that is slow never slows the model: what may be left out (`optional`) is dropped once `MOST_WAITING` events
    wait, and `dropped` counts it; the last event says how many.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.dropped, self.closed = loop, 0, False
        self._waiting: deque[str] = deque()
        self._lock, self._news, self._ended = threading.Lock(), asyncio.Event(), False

    def offer(self, name: str, data: Mapping[str, object], *, optional: bool = False) -> None:
        """One event; called by the engine. It tells of `data` as it is now, whatever becomes of the lists in it."""
        with self._lock:
            if optional and len(self._waiting) >= MOST_WAITING:
                self.dropped += 1
                return
            self._waiting.append(_written(name, data))
        self._wake()

    def offer_all(self, name: str, events: Iterable[Mapping[str, object]]) -> None:
        """Events of one name, of which none may be left out, with one word to the page's own thread for all."""
        written = [_written(name, data) for data in events]
        with self._lock:
            self._waiting.extend(written)
        self._wake()

    def end(self, error: str = "") -> None:
        """No event follows; `error`: why the work could not be done."""
        self.offer("end", {"error": error, "dropped": self.dropped})
        with self._lock:
            self._ended = True
        self._wake()

    def _wake(self) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._news.set)

    async def pieces(self) -> AsyncGenerator[str, None]:
        """The events as text; whoever stops to read them ends the work."""
        try:
            while True:
                self._news.clear()
                with self._lock:
                    events, ended = list(self._waiting), self._ended
                    self._waiting.clear()
                for event in events:
                    yield event
                if ended:
                    return
                await self._news.wait()
        finally:
            self.closed = True


def _written(name: str, data: Mapping[str, object]) -> str:
    return f"event: {name}\ndata: {to_json(data, inf_nan_mode='null').decode()}\n\n"


class Steps:
    """Work that is done a step at a time, one step of each at every turn of the engine."""

    def __init__(self) -> None:
        self._active: deque[tuple[Feed, Iterator[None]]] = deque()

    def start(self, feed: Feed, work: Iterator[None]) -> None:
        """Do `work`, whose steps keep nothing open between them; the engine must be woken."""
        self._active.append((feed, work))

    def turn(self) -> bool:
        if not self._active:
            return False
        feed, work = self._active.popleft()
        if feed.closed:
            return True  # nobody reads it any more
        try:
            next(work)
        except StopIteration:
            feed.end()
        except CutawayError as error:
            feed.end(str(error))
        except Exception:
            logger.exception("a step failed")
            feed.end("The server failed at this; its log says how.")
        else:
            self._active.append((feed, work))
        return True

    def fail(self, error: BaseException) -> None:
        while self._active:
            self._active.popleft()[0].end(str(error))
