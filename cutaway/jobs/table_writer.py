"""Tables written so that nothing is lost: rows are on the disk, and counted there, before the next ones are scored.

While a job runs, `NAME.partial` holds the rows and `NAME.progress` says how many there are and what the job is. A job
that was killed left rows beyond that count at most: they are cut off and scored again. In the end, the file is renamed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cutaway.errors import InputError
from cutaway.jobs.table_reader import DELIMITERS, kind_of, parquet


class TableWriter:
    """Writes rows to `path`; `done` counts those that an earlier run of the same job has written.

    Args:
        path: .csv, .tsv, .jsonl or .parquet.
        job: what makes this job the same job, as JSON values.
        overwrite: replace a finished file, and forget a started one.

    Raises InputError: the file exists; another job has started it; its folder does not exist.
    """

    def __init__(self, path: Path, job: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.path, self.kind = path, kind_of(path)
        if self.kind == "text":
            raise InputError(
                f"{path.name}: answers have columns. Give a name that ends in .csv, .tsv, .jsonl or .parquet."
            )
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.absolute().parent}.")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists. Give another name, or --overwrite.")
        self.partial = path.with_name(path.name + ".partial")
        self.progress = path.with_name(path.name + ".progress")
        self.job = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
        self.done = self.bytes = 0
        self.columns: list[str] | None = None
        if overwrite:
            self._forget()
        self._go_on()
        self._file: io.BufferedRandom | None = None

    def _go_on(self) -> None:
        if not self.progress.exists():
            return
        state = json.loads(self.progress.read_text(encoding="utf-8"))
        if state["job"] != self.job:
            raise InputError(
                f"{self.path} was started by another job (another input, model or setting). Give another name, or "
                "--overwrite to start again."
            )
        self.done, self.bytes, self.columns = state["rows"], state["bytes"], state["columns"]

    def write(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Appends rows; when this returns, a kill or a power cut no longer takes them.

        Every row has the columns of the first call; in JSON lines each keeps its own.
        """
        if self.columns is None:
            self.columns = list(columns)
        if self.kind == "parquet":
            self._write_part(rows)
        else:
            self._append(rows)
        self.done += len(rows)
        state = {"job": self.job, "rows": self.done, "bytes": self.bytes, "columns": self.columns}
        _replace(self.progress, json.dumps(state).encode())

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        file = self._file = self._file or self._opened()
        file.write(self._text(rows).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
        self.bytes = file.tell()

    def _opened(self) -> io.BufferedRandom:
        file = self.partial.open("r+b" if self.partial.exists() else "w+b")
        file.seek(self.bytes)
        file.truncate()  # rows that were written but not counted when the earlier run ended
        return file

    def _text(self, rows: Sequence[Mapping[str, Any]]) -> str:
        if self.kind == "jsonl":
            return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        columns = self.columns or []
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=DELIMITERS[self.kind], lineterminator="\n")
        if self.done == 0:
            writer.writerow(columns)
        writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
        # a lone surrogate (from "\ud800" in JSON) has no UTF-8
        return text.getvalue().encode("utf-8", "replace").decode()

    def _write_part(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import pyarrow

        self.partial.mkdir(exist_ok=True)
        columns = {name: [row.get(name) for row in rows] for name in self.columns or []}
        table = pyarrow.table({name: _parquet_column(values) for name, values in columns.items()})
        buffer = io.BytesIO()
        parquet().write_table(table, buffer)
        _replace(self.partial / f"{self.done:012d}.parquet", buffer.getvalue())

    def finish(self) -> None:
        """Gives the file its name. A job without rows writes a file with its header."""
        if self.columns is None:
            self.write([], [])
        if self._file is not None:
            self._file.close()
        if self.kind == "parquet":
            self._join()
        self.partial.rename(self.path) if self.kind != "parquet" else self._forget()
        self.progress.unlink(missing_ok=True)

    def _join(self) -> None:
        import pyarrow

        # A part that a killed run wrote without counting it has the number of rows at its start as its name, so the
        # next run has replaced it.
        parts = sorted(self.partial.glob("*.parquet"))
        schema = pyarrow.unify_schemas([parquet().read_schema(part) for part in parts], promote_options="permissive")
        aside = self.path.with_name(self.path.name + ".joined")
        with parquet().ParquetWriter(aside, schema) as writer:
            for part in parts:
                writer.write_table(parquet().read_table(part).cast(schema))
        aside.replace(self.path)

    def _forget(self) -> None:
        self.progress.unlink(missing_ok=True)
        if self.partial.is_dir():
            for part in self.partial.iterdir():
                part.unlink()
            self.partial.rmdir()
        else:
            self.partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the file; what was written stays for the next run."""
        if self._file is not None:
            self._file.close()


def _replace(path: Path, content: bytes) -> None:
    """The file with new content, whole in every moment."""
    aside = path.with_name(path.name + ".new")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _cell(value: Any) -> Any:
    """A value as a CSV field: nothing for None, JSON for what is no plain value."""
    if value is None:
        return ""
    return value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False, default=str)


def _parquet_column(values: list[Any]) -> Any:
    """A column for pyarrow: numbers, texts and lists of numbers as they are, anything else as JSON."""
    import pyarrow

    if any(isinstance(value, dict) or (isinstance(value, list) and not _numbers(value)) for value in values):
        values = [None if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in values]
    return pyarrow.array(values)


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)
