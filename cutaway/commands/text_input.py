"""The texts that a command reads: its arguments, or the lines of stdin."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import typer

from cutaway.errors import InputError


def lines() -> Iterator[str]:
    if sys.stdin is None or sys.stdin.isatty():
        raise typer.BadParameter("give a text, or pipe one in.")
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def texts_or_stdin(texts: list[str] | None) -> Iterator[str]:
    """The texts of the command line, or the lines of stdin; empty lines are left out."""
    if texts and texts != ["-"]:
        return iter(texts)
    stream = lines()
    first = next(stream, None)  # here, so that a missing input is wrong usage before a model is loaded
    if first is None:
        raise InputError("Nothing came from stdin. Pipe in one text per line, or give texts as arguments.")
    return (line for line in itertools.chain([first], stream) if line.strip())
