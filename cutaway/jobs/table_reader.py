"""Tables read row by row: plain text, CSV, TSV, JSON lines, parquet, or lines of stdin."""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cutaway.errors import InputError, counted, nearest
from cutaway.jobs.table_text import TableText

if TYPE_CHECKING:
    from types import ModuleType

KINDS = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".xlsx": "excel",
}
DELIMITERS = {"csv": ",", "tsv": "\t"}
LONGEST_FIELD = 1 << 26  # characters of one CSV field
TEXT = "text"  # the column of a table that has only lines
COUNTED = 1 << 28  # bytes up to which a table is read once more to count its rows
CHECKED = 1 << 26  # bytes whose letters are checked before anything else is done


@dataclass
class Row:
    """One row: its values by column, or the reason why it could not be read; `number` counts from 1, blank ones too."""

    values: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    number: int = 0


# What to do with a file that is no table, by its ending.
OTHERS = {
    ".gz": "Unpack it first: gunzip {}.",
    ".bz2": "Unpack it first: bunzip2 {}.",
    ".xz": "Unpack it first: unxz {}.",
    ".zip": "Unpack it first: unzip {}.",
    ".xls": "Save it as .xlsx or .csv.",
    ".ods": "Save it as .xlsx or .csv.",
    ".json": "JSON is read as lines, one object each, in a .jsonl file.",
}
# How files begin that are named as texts and are none.
MARKS = {
    b"\x1f\x8b": "is packed by gzip: unpack it first, for example with gzip -dc",
    b"PK\x03\x04": "is a zip or Office file: unpack it, or name it .xlsx if it is one",
    b"%PDF": "is a PDF: save its table as .csv",
    b"PAR1": "is a parquet file: name it .parquet",
    b"\xd0\xcf\x11\xe0": "is an old Excel file (.xls): save it as .xlsx or .csv",
}


def kind_of(path: Path) -> str:
    """The kind of table that a file name stands for. Raises InputError for any other ending."""
    ending = path.suffix.lower()
    kind = KINDS.get(ending)
    if kind is None:
        way = " " + OTHERS[ending].format(path.name) if ending in OTHERS else ""
        raise InputError(f"{path.name}: the name must end in one of {', '.join(KINDS)}.{way}")
    return kind


class TableReader:
    """The rows of a file, or of stdin ("-": one text a line). Nothing but the row at hand is in memory.

    A text is what the file says: "NA", "null" and "nan" are texts like others. A line that is no row of the table is a
    `Row` with an error: none is left out. Blank lines are no rows; they count in `Row.number`, which is the row's
    number in the file.

    Args:
        encoding: of `TableText`: what the bytes are, UTF-8 or what a mark at the file's beginning says unless given.
        delimiter: between the columns of a CSV, one letter, or "tab"; a comma unless given (in .tsv a tab).

    Raises InputError: no such file, an ending that is none of `KINDS`, a CSV without a header, bytes that are not in
        the encoding (those of later rows are met when they are read).
    """

    def __init__(self, path: Path | str, *, encoding: str | None = None, delimiter: str | None = None) -> None:
        self.path = None if str(path) == "-" else Path(path)
        if self.path is not None and self.path.is_dir():
            raise InputError(f"{self.path} is a folder, and a table was expected; give a file in it.")
        if self.path is not None and not self.path.is_file():
            raise InputError(f"{self.path}: there is no such file.")
        if self.path is None:
            _stdin()  # before a model is loaded
        self.kind = "text" if self.path is None else kind_of(self.path)
        self.encoding = encoding
        self.delimiter = self._delimiter(delimiter)
        if encoding is not None and self.kind in ("parquet", "excel"):
            raise InputError(
                f"--encoding {encoding}: {self.path} is no text file; its texts have an encoding of their own."
            )
        self._check_beginning()
        self._check_letters()
        self.columns = self._columns()

    def _delimiter(self, given: str | None) -> str:
        if given is None:
            return DELIMITERS.get(self.kind, "")
        letter = {"tab": "\t", "\\t": "\t"}.get(given, given)
        if self.kind not in DELIMITERS:
            raise InputError(f"--delimiter {given}: {self.path or 'stdin'} is no .csv or .tsv, and has none.")
        if len(letter) != 1 or letter in '"\r\n':
            raise InputError(f"--delimiter {given!r}: give one letter that stands between columns, or tab.")
        return letter

    def _check_beginning(self) -> None:
        """Raises InputError where the file is of another kind than its name says."""
        if self.path is None or self.kind in ("parquet", "excel"):
            return
        with self.path.open("rb") as file:
            first = file.read(4096)
            file.seek(max(0, file.seek(0, 2) - 4))
            last = file.read()
        said = next((said for mark, said in MARKS.items() if first.startswith(mark)), None)
        if first.startswith(b"PAR1") and last != b"PAR1":  # parquet has it at both ends; a column may be called so
            said = None
        if said is not None:
            raise InputError(f"{self.path} {said}.")
        line = first.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")[0].strip()
        if self.kind == "jsonl" and (line.startswith(b"[") or line == b"{"):
            what = "a JSON list" if line.startswith(b"[") else "one JSON object over several lines"
            raise InputError(f"{self.path} is {what}; write its rows as JSON lines: one object a line.")

    def _check_letters(self) -> None:
        """Raises InputError where the beginning of the file is in another encoding: before a model is loaded."""
        if self.path is None or self.kind in ("parquet", "excel"):
            return
        with self._open() as stream:
            if stream.replaces:
                return
            decoder = codecs.getincrementaldecoder(stream.encoding)("strict")
        try:
            with self.path.open("rb") as file:
                while file.tell() < CHECKED and (piece := file.read(1 << 20)):
                    decoder.decode(piece)
                decoder.decode(b"", final=not file.read(1))
        except UnicodeError:
            self.columns = self._columns()
            for _ in self.rows():  # comes to the row, and names it
                pass

    def count(self) -> int | None:
        """How many rows there are, by reading the table once; None for stdin and for files above `COUNTED` bytes."""
        if self.kind == "parquet":
            return int(parquet().ParquetFile(self.path).metadata.num_rows)
        if self.path is None or self.path.stat().st_size > COUNTED:
            return None
        return sum(1 for _ in self.rows())

    def rows(self, start: int = 0) -> Iterator[Row]:
        """The rows from number `start` (from 0) on."""
        if self.kind == "parquet":
            yield from self._parquet(start)
            return
        if self.kind == "excel":
            yield from itertools.islice(self._excel(), start, None)
            return
        try:
            yield from self._skipped(start)
        except csv.Error as error:
            raise InputError(f"{self.path or 'stdin'}: {error}. Is a quotation mark not closed?") from None

    def _skipped(self, start: int) -> Iterator[Row]:
        with self._open() as stream:
            rows = self._parsed(stream)
            for _ in range(start):
                if next(rows, None) is None:
                    raise InputError(f"{self.path or 'stdin'} has fewer than the {start} rows that were done before.")
            yield from rows

    def _open(self) -> TableText:
        # newline="" as the csv module asks for; in a text, the line's own end is taken off below
        newline = "" if self.kind in DELIMITERS else None
        if self.path is None:
            return TableText(_stdin(), self.encoding, "stdin", newline)
        return TableText(self.path.open("rb"), self.encoding, str(self.path), newline)

    def _columns(self) -> list[str] | None:
        """The columns, where the file names them before its rows."""
        if self.kind == "text":
            return [TEXT]
        if self.kind == "parquet":
            return list(parquet().ParquetFile(self.path).schema_arrow.names)
        if self.kind == "excel":
            with self._sheet() as lines:
                names = ["" if cell is None else str(cell) for cell in next(lines, ())]
            while names and not names[-1]:
                names.pop()  # cells that were only formatted
            return self._header(names)
        if self.kind == "jsonl":
            return None
        with self._open() as stream:
            stream.rows = -1
            try:
                header = next(csv.reader(stream, delimiter=self.delimiter), None)
            except csv.Error as error:
                raise InputError(f"{self.path}: {error}. Is a quotation mark not closed?") from None
        if header and any("\0" in name for name in header):
            raise InputError(f"{self.path}: the first line holds zero bytes. Is it UTF-16? Say --encoding utf-16-le.")
        return self._header(header)

    def _header(self, names: list[str] | None) -> list[str]:
        if not names:
            raise InputError(f"{self.path} is empty: the first line must name the columns.")
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            where = f"{twice!r:.60} stands there twice"
            raise InputError(f"{self.path}: the first line must name the columns, each once; {where}.")
        return names

    @contextmanager
    def _sheet(self) -> Iterator[Iterator[tuple[Any, ...]]]:
        """The lines of an Excel file's first sheet: values, of formulas those that Excel stored."""
        module = openpyxl()
        try:
            book = module.load_workbook(self.path, read_only=True, data_only=True)
        except Exception as error:  # whatever its reader raises, the file is none that it knows
            said = f"{type(error).__name__}: {str(error)[:100]}"
            raise InputError(
                f"{self.path} cannot be read as Excel (.xlsx): {said}. Save it anew, or as .csv."
            ) from error
        try:
            yield iter(book.worksheets[0].iter_rows(values_only=True)) if book.worksheets else iter(())
        finally:
            book.close()

    def _excel(self) -> Iterator[Row]:
        """Texts as they are; numbers, dates and truth values too. Lines without any value are blank."""
        columns = self.columns or []
        with self._sheet() as lines:
            next(lines, None)
            for number, line in enumerate(lines, start=1):
                cells = [*line, *[None] * (len(columns) - len(line))]
                values = {name: _excel_value(cell) for name, cell in zip(columns, cells, strict=False)}
                beyond = [cell for cell in cells[len(columns) :] if cell is not None]
                error = f"the row has values beyond the {len(columns)} columns of the header" if beyond else ""
                if error or any(value != "" for value in values.values()):
                    yield Row(values, error, number)

    def _parsed(self, stream: TableText) -> Iterator[Row]:
        if self.kind in DELIMITERS:
            yield from self._delimited(stream)
            return
        for line in stream:
            number = stream.rows + 1
            if self.kind == "text":
                yield Row({TEXT: line.rstrip("\r\n")}, number=number)
            elif line.strip():
                yield replace(_json_row(line), number=number)
            stream.rows += 1

    def _delimited(self, stream: TableText) -> Iterator[Row]:
        csv.field_size_limit(LONGEST_FIELD)
        records = csv.reader(stream, delimiter=self.delimiter)
        stream.rows = -1
        header = next(records)
        stream.rows = 0
        for record in records:
            number = stream.rows + 1
            if len(record) == len(header):
                yield Row(dict(zip(header, record, strict=True)), number=number)
            elif record and (len(record) > 1 or record[0].strip()):
                error = f"the row has {counted(len(record), 'field')}, the header has {len(header)}"
                if len(record) < len(header) and any("\n" in cell for cell in record):
                    error += "; is a quotation mark not closed?"
                yield Row(dict(zip(header, record, strict=False)), error, number)
            stream.rows += 1

    def _parquet(self, start: int) -> Iterator[Row]:
        file = parquet().ParquetFile(self.path)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            if number + len(batch) > start:
                first = max(start - number, 0)
                for place, values in enumerate(batch.to_pylist()[first:], start=number + first + 1):
                    yield Row(values, number=place)
            number += len(batch)


def way_to_column(columns: Sequence[str], wanted: str, otherwise: str) -> str:
    """What to do where a table lacks the column `wanted`: its columns are cut at another mark, one is alike, or else.

    otherwise: a sentence with a space before it.
    """
    return divided_by(columns, wanted) or nearest(wanted, columns, few=0) + otherwise


def divided_by(columns: Sequence[str], wanted: str) -> str:
    """A sentence for a table that lacks the column `wanted`, where its header has it between other marks; else "".

    columns: the names that the header was cut into.
    """
    for letter, said in ((";", "';'"), ("\t", "tab"), (",", "','"), ("|", "'|'")):
        for name in columns:
            names = [part.strip().strip('"') for part in name.split(letter)]
            if len(names) > 1 and (wanted in names or len(columns) == 1):
                return f" Its columns seem to be divided by {said}: say so with --delimiter {said}."
    return ""


def _stdin() -> IO[bytes]:
    """The bytes of standard input. Raises InputError where it is closed."""
    try:
        return sys.stdin.buffer
    except (AttributeError, ValueError, OSError):
        raise InputError(
            "Standard input is closed, so nothing can be read from it. Give a file, or pipe one in."
        ) from None


def _json_row(line: str) -> Row:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(error=f"the line is not JSON: {str(error)[:80]}")
    if not isinstance(values, dict):
        return Row(error=f"the line is a JSON {type(values).__name__}, not an object")
    return Row(values)


def _excel_value(cell: object) -> object:
    """A cell as a JSON value: dates and times as ISO 8601 writes them, an empty one as an empty text, as in CSV."""
    if cell is None:
        return ""
    return cell.isoformat() if hasattr(cell, "isoformat") else cell


def openpyxl() -> ModuleType:
    """The module openpyxl. Raises InputError where it is not installed."""
    try:
        import openpyxl
    except ImportError as error:
        raise InputError("Excel files need openpyxl: pip install 'cutaway[excel]'.") from error
    module: ModuleType = openpyxl
    return module


def parquet() -> ModuleType:
    """pyarrow.parquet. Raises InputError where pyarrow is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("Parquet files need pyarrow: pip install 'cutaway[tables]'.") from error
    module: ModuleType = pyarrow.parquet
    return module
