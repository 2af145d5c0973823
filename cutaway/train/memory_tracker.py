"""`skip_memory_metrics=False`: what a stage of a training takes of the memory, as further metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

from cutaway.errors import MissingExtraError

_STATM = Path("/proc/self/statm")
_SECONDS = 0.002  # between two looks


def resident() -> int:
    """Bytes of this process in memory.

    Raises:
        MissingExtraError: the system tells them through psutil alone, which is not installed.
    """
    if _STATM.exists():
        import resource

        return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
    try:
        psutil: ModuleType = __import__("psutil")
    except ImportError as error:
        raise MissingExtraError("skip_memory_metrics=False needs psutil on this system: pip install psutil.") from error
    return int(psutil.Process().memory_info().rss)


class _Stage:
    """What is followed between two points: the bytes at the beginning, and the most that was seen since."""

    def __init__(self, name: str) -> None:
        self.name, self.before, self.peak = name, resident(), 0
        self.cuda = torch.cuda.is_available()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before_cuda = torch.cuda.memory_allocated()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._look, daemon=True)
        self._watcher.start()

    def _look(self) -> None:
        while not self._ended.wait(_SECONDS):
            self.peak = max(self.peak, resident())

    def end(self) -> None:
        self._ended.set()
        self._watcher.join()

    def metrics(self, prefix: str) -> dict[str, int]:
        now = resident()
        found = {
            f"{prefix}_mem_cpu_alloc_delta": now - self.before,
            f"{prefix}_mem_cpu_peaked_delta": max(0, self.peak - now),
        }
        if self.cuda:
            now = torch.cuda.memory_allocated()
            found[f"{prefix}_mem_gpu_alloc_delta"] = now - self.before_cuda
            found[f"{prefix}_mem_gpu_peaked_delta"] = max(0, torch.cuda.max_memory_allocated() - now)
        return found


class MemoryTracker:
    """Follows one stage at a time; one inside another (an evaluation in a training) belongs to the outer one."""

    def __init__(self) -> None:
        self._running: _Stage | None = None
        self._of_init: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Inside, the memory is followed."""
        if self._running is not None:
            yield
            return
        running = self._running = _Stage(name)
        try:
            yield
            if name == "init":
                before = {"cpu": running.before, **({"gpu": running.before_cuda} if running.cuda else {})}
                self._of_init = {f"before_init_mem_{where}": n for where, n in before.items()} | running.metrics(name)
        finally:
            self._running = None
            running.end()

    def metrics(self, name: str, prefix: str) -> dict[str, int]:
        """What the stage `name`, which still runs, has taken so far; the first to ask also gets those of "init".

        Returns:
            Bytes by name. `{prefix}_mem_cpu_alloc_delta`: what there is more than at the beginning, or less;
            `{prefix}_mem_cpu_peaked_delta`: how much more than now there was for a time. With a GPU also `_gpu_`.
            Nothing for a stage inside another.
        """
        if self._running is None or self._running.name != name:
            return {}
        init, self._of_init = self._of_init, {}
        return init | self._running.metrics(prefix)
