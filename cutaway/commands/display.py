"""What a command prints: plain text, JSON lines, tables."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


def write(text: str, end: str = "\n") -> None:
    """Print to standard output, at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def command_line() -> str:
    """What was typed, as a report names it."""
    return shlex.join(["cutaway", *sys.argv[1:]])


def as_line(value: object) -> str:
    """A value as one line of JSON, with null for NaN and infinity, which JSON does not have."""
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False)
    except ValueError:
        from cutaway.jobs.table_writer import finite

        return json.dumps(finite(value), ensure_ascii=True, allow_nan=False)


def console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def table_of(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name.rstrip(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
    return table


def plain(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style)
