"""How far a job is: a line that moves on a terminal, a plain line now and then elsewhere; both on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from cutaway.errors import counted

EVERY = 15.0  # seconds between two plain lines


class JobProgress:
    """`progress(rows, failed)` after each part of the rows; a context manager.

    before: rows that an earlier run has done. total: rows of the whole table, where they are known.
    """

    def __init__(self, before: int, total: int | None = None) -> None:
        self.total = total
        self.before, self.began, self.said = before, time.monotonic(), time.monotonic()
        self.bar: Progress | None = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task("reading")

    def __enter__(self) -> JobProgress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, rows: int, failed: int) -> None:
        """Rows done in all, and those of this run with an error."""
        now = time.monotonic()
        rate = (rows - self.before) / max(now - self.began, 1e-9)
        line = self._line(rows, failed, rate)
        if self.bar is not None:
            self.bar.update(self.task, description=line)
        elif now - self.said >= EVERY:
            self.said = now
            sys.stderr.write(line + "\n")

    def _line(self, rows: int, failed: int, rate: float) -> str:
        said = counted(rows, "row")
        if self.total:
            said = f"{rows:,} of {counted(self.total, 'row')}, {min(rows / self.total, 1):.0%}"
        said += f", {rate:,.0f} a second" if rate >= 10 else f", {rate:.2g} a second"
        if self.total and rate > 0 and rows < self.total:
            said += f", {spell((self.total - rows) / rate)} left"
        return said + (f", {failed:,} with an error" if failed else "")


def spell(seconds: float) -> str:
    """A span of time in the two largest of hours, minutes and seconds."""
    whole = max(round(seconds), 0)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
