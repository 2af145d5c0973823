"""Tables read row by row: plain text, CSV, TSV, JSON lines, parquet, or lines of stdin."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cutaway.errors import InputError

KINDS = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
DELIMITERS = {"csv": ",", "tsv": "\t"}
LONGEST_FIELD = 1 << 26  # characters of one CSV field
TEXT = "text"  # the column of a table that has only lines


@dataclass
class Row:
    """One row: its values by column, or the reason why it could not be read."""

    values: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def kind_of(path: Path) -> str:
    """The kind of table that a file name stands for. Raises InputError for any other ending."""
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path.name}: the name must end in one of {', '.join(KINDS)}.")
    return kind


class TableReader:
    """The rows of a file, or of stdin ("-": one text a line). Nothing but the row at hand is in memory.

    Bytes that are not UTF-8 are read as U+FFFD. A line that is no row of the table is a `Row` with an error: no row is
    left out, so that row numbers of input and output agree.

    Raises InputError: no such file, an ending that is none of `KINDS`, a CSV without a header.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = None if str(path) == "-" else Path(path)
        if self.path is not None and not self.path.is_file():
            raise InputError(f"{self.path}: there is no such file.")
        self.kind = "text" if self.path is None else kind_of(self.path)
        self.columns = self._columns()

    def rows(self, start: int = 0) -> Iterator[Row]:
        """The rows from number `start` (from 0) on."""
        found = self._parquet(start) if self.kind == "parquet" else self._skipped(start)
        yield from found

    def _skipped(self, start: int) -> Iterator[Row]:
        with self._open() as stream:
            rows = self._parsed(stream)
            for _ in range(start):
                if next(rows, None) is None:
                    raise InputError(f"{self.path or 'stdin'} has fewer than the {start} rows that were done before.")
            yield from rows

    def _open(self) -> IO[str]:
        if self.path is None:
            return open(sys.stdin.fileno(), encoding="utf-8", errors="replace", closefd=False)
        # newline="" as the csv module asks for; in a text, the line's own end is taken off below
        return self.path.open(encoding="utf-8-sig", errors="replace", newline="" if self.kind in DELIMITERS else None)

    def _columns(self) -> list[str] | None:
        """The columns, where the file names them before its rows."""
        if self.kind == "text":
            return [TEXT]
        if self.kind == "parquet":
            return list(parquet().ParquetFile(self.path).schema_arrow.names)
        if self.kind == "jsonl":
            return None
        with self._open() as stream:
            header = next(csv.reader(stream, delimiter=DELIMITERS[self.kind]), None)
        if not header or len(set(header)) != len(header):
            raise InputError(f"{self.path}: the first line must name the columns, each once.")
        return header

    def _parsed(self, stream: IO[str]) -> Iterator[Row]:
        if self.kind == "text":
            return (Row({TEXT: line.rstrip("\r\n")}) for line in stream)
        if self.kind == "jsonl":
            return (_json_row(line) for line in stream)
        return self._delimited(stream)

    def _delimited(self, stream: Iterable[str]) -> Iterator[Row]:
        csv.field_size_limit(LONGEST_FIELD)
        records = csv.reader(stream, delimiter=DELIMITERS[self.kind])
        header = next(records)
        for record in records:
            if len(record) == len(header):
                yield Row(dict(zip(header, record, strict=True)))
            else:
                error = f"the row has {len(record)} fields, the header has {len(header)}"
                yield Row(dict(zip(header, record, strict=False)), error)

    def _parquet(self, start: int) -> Iterator[Row]:
        file = parquet().ParquetFile(self.path)
        for batch in file.iter_batches(batch_size=1024):
            if start >= len(batch):
                start -= len(batch)
                continue
            yield from (Row(values) for values in batch.to_pylist()[start:])
            start = 0


def _json_row(line: str) -> Row:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(error=f"the line is not JSON: {str(error)[:80]}")
    if not isinstance(values, dict):
        return Row(error=f"the line is a JSON {type(values).__name__}, not an object")
    return Row(values)


def parquet() -> Any:
    """pyarrow.parquet. Raises InputError where pyarrow is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("Parquet files need pyarrow: pip install 'cutaway[tables]'.") from error
    return pyarrow.parquet
