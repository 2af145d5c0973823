"""Processes that hold one library each, and the turns that they take."""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "bench"
LEAST_ROUNDS = 3  # however long a job takes
JOB_SECONDS = 45.0  # of the suites that are meant to end in minutes: no further round of a job begins after so long
LEFT_OUT: dict[str, str] = {}  # the libraries of a suite that could not be measured: why


def leave_out(entry: Entry, error: Exception) -> None:
    """Note, and say, that one is not measured; `run.py` puts it into the suite's figures."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    name = f"{entry.name} {entry.precision}"
    if name not in LEFT_OUT:
        LEFT_OUT[name] = lines[-1].strip()[-300:]
        print(f"left out: {name}: {LEFT_OUT[name]}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Entry:
    """One line of a table: a library, a way to use it (`where`: module:class) and a precision."""

    name: str
    where: str
    precision: str
    share: float = 1.0  # of the texts: a way that is many times slower is measured on fewer of them
    tolerance: float = 2e-5  # of its vectors from the reference's, cosine distance


class Worker:
    """`worker.py` for one entry."""

    def __init__(self, entry: Entry, folder: Path, threads: int) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(threads),
            "TRANSFORMERS_VERBOSITY": "error",
            "TOKENIZERS_PARALLELISM": "false",
            "TQDM_DISABLE": "1",
            "PYTHONWARNINGS": "ignore",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a start that compiles sources anew is nobody's
        BUILD.mkdir(parents=True, exist_ok=True)
        self.entry = entry
        command = [sys.executable, str(HERE / "worker.py"), entry.where, str(folder), entry.precision, str(threads)]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `close`)
        self.process = subprocess.Popen(
            [*command, str(BUILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
            text=True,
            cwd=HERE,
        )
        self.start = self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"{self.entry.name} {self.entry.precision}: {self.log.read().strip()[-600:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, call: str, *arguments: Any, keep: Path | None = None) -> dict[str, Any]:
        assert self.process.stdin is not None
        request = {"call": call, "with": arguments, "keep": str(keep) if keep else None}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def result(self, call: str, *arguments: Any) -> np.ndarray:
        """What the call returns, as an array; not for measuring."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "result.npy"
            self.ask(call, *arguments, keep=file)
            result: np.ndarray = np.load(file)
        return result

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.log.close()


@contextlib.contextmanager
def workers(entries: list[Entry], folder: Path, threads: int) -> Iterator[dict[Entry, Worker]]:
    """A process for each entry; one that cannot start is named on stderr and left out, never silently."""
    running: dict[Entry, Worker] = {}
    try:
        for entry in entries:
            try:
                running[entry] = Worker(entry, folder, threads)
            except RuntimeError as error:
                leave_out(entry, error)
        yield running
    finally:
        for worker in running.values():
            worker.close()


def turns(
    running: Mapping[Entry, Worker],
    calls: Mapping[Entry, tuple[Any, ...]],
    rounds: int,
    *,
    is_warm: bool = False,
    at_most: float = math.inf,
) -> dict[Entry, list[float]]:
    """Seconds of each entry's call in each round; the order turns round.

    One round before is not counted, unless `is_warm`: the same calls were made already, to see what comes out. After
    three rounds no other begins once `at_most` seconds have gone by.
    """
    start = time.perf_counter()
    seconds: dict[Entry, list[float]] = {entry: [] for entry in running}
    for number in range(1 if is_warm else 0, rounds + 1):
        if number > LEAST_ROUNDS and time.perf_counter() - start > at_most:
            break
        for entry in list(running) if number % 2 else list(reversed(list(running))):
            took = running[entry].ask(*calls[entry])["seconds"]
            if number:
                seconds[entry].append(took)
    return seconds


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest 1 - cos of two lists of vectors [n, H]."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(1 - ((a * b).sum(axis=1) / lengths).min())


def measured(entry: Entry, seconds: list[float], amount: float, **more: Any) -> dict[str, Any]:
    """A line of results: the median rate of `amount` in each round, and its range."""
    rates = [amount / s for s in seconds]
    return {
        "name": entry.name,
        "precision": entry.precision,
        "rate": statistics.median(rates),
        "low": min(rates),
        "high": max(rates),
        "seconds": seconds,
        **more,
    }
