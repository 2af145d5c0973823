"""The texts of a table: those rows that hold one, with their numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cutaway.errors import InputError, counted
from cutaway.jobs.table_reader import TEXT, TableReader, way_to_column
from cutaway.pipelines.row_faults import faults, is_blank

DIGEST = 16  # bytes: enough that two texts never share one


@dataclass(frozen=True)
class TextTable:
    """Texts with the rows that they stand in.

    Attributes:
        texts: the texts of the rows that have one.
        rows: their numbers, from 1, as a row number everywhere counts.
        values: all columns of these rows.
        column: the column that the texts are in. columns: all of them, in order.
        left_out: row number -> why the row has no text.
        path: the table; None for one that is no file.
    """

    texts: list[str]
    rows: list[int]
    values: list[dict[str, object]]
    column: str
    columns: list[str]
    left_out: dict[int, str] = field(default_factory=dict)
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def digests(self) -> NDArray[np.uint8]:
        """BLAKE2b of each text, uint8 [texts, 16]."""
        found = [
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest() for text in self.texts
        ]
        return np.frombuffer(b"".join(found), dtype=np.uint8).reshape(len(found), DIGEST)

    def left_out_note(self) -> str:
        """A sentence about the rows without a text; "" where there is none."""
        n = len(self.left_out)
        said = "has no text and is left out" if n == 1 else "have no text and are left out"
        return f"{counted(n, 'row')} {said} ({faults(list(self.left_out.items()))})." if n else ""


def read_texts(
    table: Path | str | Sequence[str] | Sequence[Mapping[str, object]],
    column: str = TEXT,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
) -> TextTable:
    """The texts of a table's column.

    Args:
        table: a file that `TableReader` reads, or "-"; or texts, or rows, that are in memory already.
        column: the one that holds the texts.
        encoding, delimiter: of a file, as in `TableReader`.

    Raises:
        InputError: the table cannot be read, it has no such column, or no row has a text.
    """
    if isinstance(table, (str, Path)):
        reader = TableReader(table, encoding=encoding, delimiter=delimiter)
        if reader.columns is not None and column not in reader.columns:
            raise _no_column(column, reader.columns)
        read = ((row.number, row.values, row.error) for row in reader.rows())
        path, columns = reader.path, list(reader.columns or [])
    else:
        if not isinstance(table, Iterable):
            raise InputError(f"The table is a {type(table).__name__}: pass a file's name, texts, or rows.")
        entries: list[str | Mapping[str, object]] = list(table)
        for number, entry in enumerate(entries, start=1):
            if not isinstance(entry, str | Mapping):
                raise InputError(
                    f"Row {number} is a {type(entry).__name__} ({entry!r:.40}): a row is a text or a dict."
                )
        made = [{column: entry} if isinstance(entry, str) else dict(entry) for entry in entries]
        read, path, columns = ((number, values, "") for number, values in enumerate(made, start=1)), None, []
    texts, rows, kept, left_out = [], [], [], {}
    known = dict.fromkeys(columns)
    for number, values, error in read:
        known |= dict.fromkeys(values)
        text = values.get(column)
        if error or not isinstance(text, str) or is_blank(text):
            left_out[number] = error or _without(column, values)
            continue
        texts.append(text)
        rows.append(number)
        kept.append(dict(values))
    if column not in known and left_out:
        raise _no_column(column, list(known))
    if not texts:
        why = f": {faults(list(left_out.items()))}" if left_out else ": it has no row"
        raise InputError(f"{path or 'The table'} has no text in the column {column!r}{why}.")
    return TextTable(texts, rows, kept, column, list(known), left_out, path)


def _without(column: str, values: Mapping[str, object]) -> str:
    if column not in values:
        return f"it has no {column!r}"
    value = values[column]
    return f"{column!r} is empty" if is_blank(value) else f"{column!r} is {value!r:.40}, not a text"


def _no_column(column: str, columns: list[str]) -> InputError:
    way = way_to_column(columns, column, " Name the one that holds the texts with --column.")
    return InputError(f"The table has no column {column!r}; it has {', '.join(map(repr, columns)) or 'none'}.{way}")
