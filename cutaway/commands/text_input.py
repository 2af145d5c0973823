"""The texts that a command reads: its arguments, or the lines of stdin."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import typer

from cutaway.commands.file_names import check_no_file
from cutaway.errors import InputError, counted
from cutaway.pipelines.row_faults import is_blank, named_rows


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
    """The texts of the command line, or the lines of stdin; blank lines are left out, and at the end it is said.

    way: what to do with a file, where one is given in place of a text.
    """
    if texts and texts != ["-"]:
        if encoding is not None:
            raise typer.BadParameter("--encoding is that of a table or of stdin; the command line has its own.")
        for place, text in enumerate(texts, start=1):
            check_no_file(text, way)
            if is_blank(text):
                which = f"text {place} of {len(texts)}" if len(texts) > 1 else "the text"
                raise typer.BadParameter(f"{which} is empty; give one with at least a word.")
        return iter(texts)
    stream = lines(encoding)
    first = next(stream, None)  # here, so that a missing input is wrong usage before a model is loaded
    if first is None:
        raise InputError("Nothing came from stdin. Pipe in one text per line, or give texts as arguments.")
    return _not_blank(itertools.chain([first], stream))


def _not_blank(stream: Iterator[str]) -> Iterator[str]:
    blank, there = [], False
    for number, line in enumerate(stream, start=1):
        if is_blank(line):
            blank.append(number)
        else:
            there = True
            yield line
    if not there:
        raise InputError("Only blank lines came from stdin. Pipe in one text per line, or give texts as arguments.")
    if blank:
        verb = "is left out: it is" if len(blank) == 1 else "are left out: they are"
        sys.stderr.write(f"{counted(len(blank), 'line')} of stdin {verb} blank ({named_rows(blank, 'line')}).\n")
