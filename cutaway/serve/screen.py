"""What a server says of itself when it is ready: one screen."""

from __future__ import annotations

import socket

from cutaway import __version__
from cutaway.serve.service import Service
from cutaway.show.label import printable


def address_of(listener: socket.socket) -> str:
    """The address that a listening socket is reached at."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def screen(service: Service, listener: socket.socket) -> str:
    """Address, models, their tasks and number formats, who may call."""
    address, access, limits = address_of(listener), service.access, service.limits
    lines = [f"cutaway {__version__} serves at {address}"]
    for served in service.models.values():
        model = served.model
        size = f"{model.num_parameters() / 1e6:,.1f}M"
        tasks = ", ".join(sorted(served.tasks))
        lines.append(f"  {printable(served.name)}: {model.precision.name}, {size} parameters, {tasks}")
    who = "with the API key" if access.key is not None else "without a key"
    hosts = "any name" if access.hosts is None else ", ".join(access.hosts)
    lines.append(f"  callers: {who}, by {hosts}" + (f", from {', '.join(access.origins)}" if access.origins else ""))
    lines.append(f"  at most {limits.requests} requests at once, {limits.running} texts written together")
    lines.append(f"  OpenAI {address}/v1   Ollama {address}   metrics {address}/metrics   all {address}/openapi.json")
    return "\n".join(lines) + "\n"
