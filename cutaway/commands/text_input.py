"""The texts that a command reads: its arguments, or the lines of stdin."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import typer

from cutaway.commands.file_names import check_no_file
from cutaway.errors import InputError


def lines(encoding: str | None = None, way: str = "Pipe it in as UTF-8 (iconv -f CP1252 -t UTF-8).") -> Iterator[str]:
    """The lines of stdin. way: what to do where they are not in the encoding (UTF-8, or what a mark says)."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise typer.BadParameter("give a text, or pipe one in.")
    from cutaway.jobs.table_text import TableText

    text = TableText(sys.stdin.buffer, encoding, "stdin", None, way)
    for line in text:
        yield line.rstrip("\r\n")
        text.rows += 1


def texts_or_stdin(
    texts: list[str] | None, encoding: str | None = None, way: str = "Pipe its lines in: cutaway ... - < {}."
) -> Iterator[str]:
    """The texts of the command line, or the lines of stdin; empty lines are left out.

    way: what to do with a file, where one is given in place of a text.
    """
    if texts and texts != ["-"]:
        if encoding is not None:
            raise typer.BadParameter("--encoding is that of a table or of stdin; the command line has its own.")
        for text in texts:
            check_no_file(text, way)
        if not any(text.strip() for text in texts):
            raise typer.BadParameter("the text is empty; give one with at least a word.")
        return iter(texts)
    stream = lines(encoding)
    first = next(stream, None)  # here, so that a missing input is wrong usage before a model is loaded
    if first is None:
        raise InputError("Nothing came from stdin. Pipe in one text per line, or give texts as arguments.")
    return (line for line in itertools.chain([first], stream) if line.strip())
