"""The process that loads models and answers: uvicorn around the app, on a socket that somebody else may hold too."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cutaway.errors import CutawayError
from cutaway.serve.asgi import app_of
from cutaway.serve.route import Route
from cutaway.serve.service import Service
from cutaway.serve.settings import Limits


class TimedProtocol(H11Protocol):
    """HTTP whose first request must arrive within a time, so that a connection that says nothing is closed.

    What is written goes out at once (TCP_NODELAY). asyncio sees to that only for sockets that name their protocol, as
    those of `socket.create_server` do not: an answer's body would wait 40 ms for the peer's word that its head came.
    """

    header_seconds = 15.0

    @classmethod
    def bound_to(cls, limits: Limits) -> type[TimedProtocol]:
        """The protocol with the time that these limits give."""
        return type(cls.__name__, (cls,), {"header_seconds": limits.header_seconds})

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._late = self.loop.call_later(self.header_seconds, self._close_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)

    def _close_silent(self) -> None:
        if getattr(self, "cycle", None) is None:
            self.transport.close()


class Server(uvicorn.Server):
    """A server that SIGTERM and SIGINT end well: no new connection, every answer to its end, exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, without raising the signal again when all is done."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True  # asked a second time
        self.should_exit = True


def run_worker(
    service: Service,
    listener: socket.socket,
    announce: Callable[[], None] | None = None,
    routes: Sequence[Route] = (),
) -> int:
    """Serve until a signal; the exit code. `announce` is called once all models are ready. `routes`: see
    `app_of`.

    A model that cannot be loaded ends it with 1: the reason stands in `service.error`.
    """
    limits = service.limits
    config = uvicorn.Config(
        app_of(service, routes),
        http=TimedProtocol.bound_to(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=limits.header_bytes,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(limits.drain_seconds),
        backlog=2048,
    )
    server = Server(config)

    def loaded() -> None:
        if server.should_exit:  # stopped while it loaded: there is nothing to tell any more, and nobody
            return
        if service.error:
            server.should_exit = True
        elif announce is not None:
            try:
                announce()
            except CutawayError as error:
                service.error = str(error)
                server.should_exit = True

    service.start(loaded)
    server.run(sockets=[listener])
    return 1 if service.error else 0


def log_to_stderr() -> None:
    """Lines of JSON, one for each request, and warnings, on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    requests = logging.getLogger("cutaway.serve.requests")
    requests.addHandler(handler)
    requests.setLevel(logging.INFO)
    requests.propagate = False
    for name in ("cutaway", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
