"""A studio is started: on a socket of the loopback address, under a key that only its own address names."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cutaway.errors import InputError
from cutaway.serve.screen import address_of
from cutaway.serve.service import Service
from cutaway.serve.settings import Access, Limits
from cutaway.serve.worker import run_worker
from cutaway.studio.routes import Studio
from cutaway.studio.workbench import Workbench


def listen(port: int) -> socket.socket:
    """A listening socket that only this machine reaches. InputError where the port is taken."""
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError as error:
        raise InputError(f"--port {port} cannot be listened on: {error.strerror or error}. Give another.") from None


def make(
    models: object,
    key: str,
    folders: tuple[Path, ...] = (),
    kept: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[Service, Workbench]:
    """The service of a studio, and its workbench."""
    service = Service(models, Limits(), Access(key), **dict(options or {}))
    return service, Workbench(service, folders, kept)


def serve_here(
    models: object,
    key: str,
    port: int,
    folders: tuple[Path, ...],
    kept: Path | None,
    options: Mapping[str, Any],
    announce: Callable[[str], None],
    saes: Sequence[tuple[str, str]] = (),
) -> tuple[int, str]:
    """Serve until a signal: (exit code, why not). `announce` is told the page's address once the models are there.

    Args:
        saes: (address, folder) of sparse autoencoders for the first model.
    """
    listener = listen(port)
    service, bench = make(models, key, folders, kept, options)
    # the key stands behind the #, which no browser sends to anybody
    address = f"{address_of(listener)}/studio#key={key}"

    def ready() -> None:
        bench.attach(saes)
        announce(address)

    code = run_worker(service, listener, ready, Studio(bench).routes())
    return code, service.error
