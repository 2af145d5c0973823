"""Locks that a forked child finds free, all of those that stand in modules."""

import gc
import importlib
import os
import pkgutil
import threading
import time
from collections.abc import Callable

import pytest
from held_elsewhere import held_elsewhere

import cutaway
from cutaway.checkpoint.collector_pause import collector_paused
from cutaway.locks.fork_lock import ForkLock

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


def in_child(run: Callable[[], bool]) -> bool:
    """What `run` answers in a child made by fork; False where it has not answered after 20 seconds."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if run() else 1)
        finally:
            os._exit(2)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def test_a_child_finds_it_free_and_the_parent_does_not() -> None:
    lock = ForkLock()

    def enter() -> bool:
        with lock, lock:
            return True

    with held_elsewhere(lock):
        assert in_child(enter)
        assert not lock._lock.acquire(blocking=False)
    with lock:
        pass


def test_no_module_has_a_lock_that_outlives_a_fork() -> None:
    """A plain lock of a module is renewed by a function of the module itself, which is called after a fork."""
    plain = type(threading.Lock()), type(threading.RLock())
    renewing = {"cutaway.locks.output_lock", "cutaway.tokenization.chat_worker"}
    found = set()
    for module in pkgutil.walk_packages(cutaway.__path__, "cutaway."):
        if not module.name.endswith("__main__"):
            try:
                names = vars(importlib.import_module(module.name))
            except ImportError:  # an extra that is not installed
                continue
            found |= {module.name for value in names.values() if isinstance(value, plain)}
    assert found <= renewing, found - renewing


def test_the_collector_runs_in_a_child_of_a_load() -> None:
    """The thread that would switch it on again is not in the child."""
    assert gc.isenabled()
    with held_elsewhere(collector_paused()):
        assert not gc.isenabled()
        assert in_child(gc.isenabled)
    assert gc.isenabled()

    def nested() -> bool:
        with collector_paused():
            inside = gc.isenabled()
        return gc.isenabled() and not inside

    assert in_child(nested)
