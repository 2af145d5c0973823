"""A Ray cluster: the one that exists, or one on this machine that nobody else can reach."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cutaway.errors import InputError


def ray() -> Any:
    """The module. Raises InputError where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed: pip install 'cutaway[ray]'.") from error
    return ray


@contextmanager
def cluster(address: str | None = None, *, workers: int) -> Iterator[Any]:
    """Connects to `address` ("auto", "ray://host:port"), or starts a cluster here for as long as the block runs.

    The one that is started listens on the loopback address alone, asks every connection for a token that is drawn now,
    and has no dashboard. A connection that the program already has is used as it is.
    """
    if address is None and "RAY_AUTH_MODE" not in os.environ:
        # read when ray is imported, and by the processes that it starts
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    module = ray()
    if module.is_initialized():
        yield module
        return
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is not None:
        module.init(address=address, **quiet)
    else:
        here = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        module.init(address="local", num_cpus=workers, **here, **quiet)
    try:
        yield module
    finally:
        module.shutdown()
