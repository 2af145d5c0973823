"""A Ray cluster: the one that exists, or one on this machine that nobody else can reach."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cutaway.errors import InputError

if TYPE_CHECKING:
    from types import ModuleType

# Ray asks it on all systems: whether other machines may join. If not, its processes listen on the loopback address;
# it turns the address 127.0.0.1 in `init` into the machine's own.
NO_OTHER_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
LOOPBACK = frozenset({"127.0.0.1", "::1"})


def ray() -> ModuleType:
    """The module. Raises InputError where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed: pip install 'cutaway[ray]'.") from error
    module: ModuleType = ray
    return module


@contextmanager
def cluster(address: str | None = None, *, workers: int) -> Iterator[Any]:
    """Connects to `address` ("auto", "ray://host:port"), or starts a cluster here for as long as the block runs.

    The one that is started listens on the loopback address alone, asks every connection for a token that is drawn now,
    and has no dashboard. A connection that the program already has is used as it is.

    Raises:
        InputError: Ray is not installed, or would not stay on the loopback address.
    """
    if address is None:  # both are read when ray is imported, and by the processes that it starts
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
        os.environ[NO_OTHER_MACHINES] = "0"
    module = ray()
    if module.is_initialized():
        yield module
        return
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is not None:
        module.init(address=address, **quiet)
    else:
        module.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
    try:
        addresses = {node["NodeManagerAddress"] for node in module.nodes()}
        if address is None and not addresses <= LOOPBACK:
            raise InputError(
                f"Ray listens on {', '.join(sorted(addresses))}, because it was imported before cutaway could keep "
                f"it on this machine. Set {NO_OTHER_MACHINES}=0 in the environment, or call ray.init() yourself first."
            )
        yield module
    finally:
        module.shutdown()
