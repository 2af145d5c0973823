"""How far a job is: a line that moves on a terminal, a plain line now and then elsewhere; both on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

EVERY = 15.0  # seconds between two plain lines


class JobProgress:
    """`progress(rows, failed)` after each part of the rows; a context manager."""

    def __init__(self, before: int) -> None:
        self.before, self.began, self.said = before, time.monotonic(), time.monotonic()
        self.bar: Any = None
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
        line = f"{rows:,} rows, {rate:,.0f} a second" + (f", {failed:,} with an error" if failed else "")
        if self.bar is not None:
            self.bar.update(self.task, description=line)
        elif now - self.said >= EVERY:
            self.said = now
            sys.stderr.write(line + "\n")
