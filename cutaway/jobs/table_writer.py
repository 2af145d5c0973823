"""Tables written so that nothing is lost: rows are on the disk, and counted there, before the next ones are scored.

While a job runs, `NAME.partial` holds the rows and `NAME.progress` says how many there are and what the job is; a lock
keeps every other job away. A job that was killed left rows beyond that count at most: they are cut off and scored
again. In the end, the file is renamed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cutaway.errors import InputError, OutputError
from cutaway.jobs.table_reader import DELIMITERS, KINDS, kind_of, parquet
from cutaway.jsonfile import MEGABYTE, read_json, require_folder, sync_file, sync_folder
from cutaway.locks.output_lock import OutputLock


class TableWriter:
    """Writes rows to `path`; `done` counts those that an earlier run of the same job has written. A context manager.

    Numbers that are not finite have no place in JSON: in .jsonl they become null, in .csv and .tsv nothing; parquet
    keeps them.

    Args:
        path: .csv, .tsv, .jsonl or .parquet.
        job: what makes this job the same job, as JSON values.
        overwrite: replace a finished file, and forget a started one.

    Raises:
        InputError: the file exists; another job has started it; its folder does not exist; what an earlier run left is
            damaged.
        OutputError: another process is writing it, or (in every method) the disk is full.
    """

    def __init__(self, path: Path, job: Mapping[str, Any], *, overwrite: bool = False) -> None:
        if path.suffix.lower() not in KINDS:
            raise InputError(f"{path.name}: the name of a table to write must end in .csv, .tsv, .jsonl or .parquet.")
        self.path, self.kind, self.overwrite = path, kind_of(path), overwrite
        if self.kind == "excel":
            raise InputError(f"{path.name}: Excel files are read, not written. Give a .csv, which Excel opens.")
        if self.kind == "text":
            raise InputError(
                f"{path.name}: answers have columns. Give a name that ends in .csv, .tsv, .jsonl or .parquet."
            )
        if self.kind == "parquet":
            parquet()  # where pyarrow is not installed: before a model is loaded
        require_folder(path)
        self.partial = path.with_name(path.name + ".partial")
        self.progress = path.with_name(path.name + ".progress")
        self.job = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
        self.done = self.bytes = 0
        self.columns: list[str] | None = None
        self._file: io.BufferedRandom | None = None
        with self._disk():
            lock = OutputLock(path).acquire()
        self._release = weakref.finalize(self, lock.release)
        try:
            if path.exists() and not overwrite:
                if self._is_finished():
                    self._forget()
                raise InputError(f"{path} exists. Give another name, or --overwrite.")
            if overwrite:
                self._forget()
            self._go_on()
        except BaseException:
            self._release()
            raise

    def _is_finished(self) -> bool:
        """Whether an earlier run had given the file its name, and was killed before it had cleared up."""
        if not self.partial.exists():
            return True
        try:
            joined = read_json(self.progress, InputError, max_bytes=64 * MEGABYTE).get("joined")
        except InputError:
            return False
        return joined is True and not self._joined().exists()

    def _go_on(self) -> None:
        """Take up what an earlier run has written, once it is known to be there."""
        if not self.progress.exists():
            if self.partial.exists():
                raise self._lost(f"{self.partial} is there, but {self.progress.name}, which counts its rows, is not")
            return
        try:
            state = read_json(self.progress, InputError, max_bytes=64 * MEGABYTE)
            rows, size, columns = state["rows"], state["bytes"], state["columns"]
            named = columns is None or (isinstance(columns, list) and all(isinstance(name, str) for name in columns))
            if not named or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in (rows, size)):
                raise InputError("its counts are none")
        except (InputError, KeyError) as error:
            raise self._lost(f"{self.progress} is damaged ({error})") from None
        if state.get("job") != self.job:
            raise InputError(
                f"{self.path} was started by another job (another input, model or setting). Give another name, or "
                "--overwrite to start again."
            )
        self.done, self.bytes, self.columns = rows, size, columns
        if rows:
            self._check_partial()

    def _check_partial(self) -> None:
        """Whether the rows that were counted are there."""
        if not self.partial.exists():
            raise self._lost(f"{self.partial} with the {self.done:,} rows that are done is missing")
        if self.kind == "parquet":
            there = 0
            for part in self._parts():
                there += parquet().read_metadata(part).num_rows
            if there != self.done:
                raise self._lost(f"{self.partial} holds {there:,} of the {self.done:,} rows that are done")
            return
        with self.partial.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, self.bytes - 1))
            if size < self.bytes or file.read(1) != b"\n":
                raise self._lost(
                    f"{self.partial} is not what {self.progress.name} counts ({size:,} bytes, {self.bytes:,} with the "
                    f"{self.done:,} rows that are done)"
                )

    def _lost(self, why: str) -> InputError:
        return InputError(f"{why}. Put it back as it was and start the same job, or --overwrite to start again.")

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Inside, an error of the disk says what is saved and how to go on."""
        try:
            yield
        except OutputError:
            raise
        except OSError as error:
            kept = "Make room (or mend it), or give another name."
            if self.done:
                rows = f"The {self.done:,} rows that are done stay"
                kept = f"{rows}; make room (or mend it), and the same job goes on after them."
            raise OutputError(
                f"{error.filename or self.path} cannot be written: {error.strerror or error}. {kept}"
            ) from error

    def write(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Appends rows; when this returns, a kill or a power cut no longer takes them.

        Every row has the columns of the first call; in JSON lines each keeps its own.
        """
        with self._disk():
            if self.columns is None:
                self.columns = list(columns)
            if self.done == 0:  # before the rows: rows without a count are nobody's
                self._count(0, 0)
            size = self._write_part(rows) if self.kind == "parquet" else self._append(rows)
            self._count(self.done + len(rows), size)
            self.done, self.bytes = self.done + len(rows), size

    def _count(self, rows: int, size: int, **more: bool) -> None:
        state = {"job": self.job, "rows": rows, "bytes": size, "columns": self.columns, **more}
        _replace(self.progress, json.dumps(state).encode())

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """The size of the file with the rows."""
        if self._file is None:
            self._file = self.partial.open("r+b" if self.partial.exists() else "w+b")
            sync_folder(self.partial.absolute().parent)
        file = self._file
        file.seek(self.bytes)
        file.truncate()  # rows that were written but not counted when the earlier run ended, or the disk was full
        file.write(self._text(rows).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
        return file.tell()

    def _text(self, rows: Sequence[Mapping[str, Any]]) -> str:
        if self.kind == "jsonl":
            return "".join(row_line(row) + "\n" for row in rows)
        columns = self.columns or []
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=DELIMITERS[self.kind], lineterminator="\n")
        if self.done == 0:
            writer.writerow(columns)
        writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
        # a lone surrogate (from "\ud800" in JSON) has no UTF-8
        return text.getvalue().encode("utf-8", "replace").decode()

    def _write_part(self, rows: Sequence[Mapping[str, Any]]) -> int:
        import pyarrow

        if not self.partial.is_dir():
            self.partial.mkdir()
            sync_folder(self.partial.absolute().parent)
        columns = {name: [row.get(name) for row in rows] for name in self.columns or []}
        table = pyarrow.table({name: _parquet_column(values) for name, values in columns.items()})
        buffer = io.BytesIO()
        parquet().write_table(table, buffer)
        _replace(self.partial / f"{self.done:012d}.parquet", buffer.getvalue())
        return 0

    def _parts(self) -> list[Path]:
        """The parts that are counted. One that is not has the number of rows done as its name, and is replaced."""
        return [part for part in sorted(self.partial.glob("*.parquet")) if part.stem < f"{self.done:012d}"]

    def finish(self) -> None:
        """Gives the file its name. A job without rows writes a file with its header."""
        if self.columns is None:
            self.write([], [])
        with self._disk():
            if self._file is not None:
                self._file.close()
            if self.path.exists() and not self.overwrite:
                raise InputError(
                    f"{self.path} was made by other software while the job ran; all answers are in {self.partial}. "
                    "Move that file away, and start the same job again: it only renames them."
                )
            if self.kind == "parquet":
                self._join()
            else:
                self.partial.replace(self.path)
            sync_folder(self.path.absolute().parent)
            self._forget()

    def _join(self) -> None:
        import pyarrow

        parts = self._parts() or sorted(self.partial.glob("*.parquet"))  # a table without rows has one part, of none
        schema = pyarrow.unify_schemas([parquet().read_schema(part) for part in parts], promote_options="permissive")
        aside = self._joined()
        with parquet().ParquetWriter(aside, schema) as writer:
            for part in parts:
                writer.write_table(parquet().read_table(part).cast(schema))
        sync_file(aside)
        self._count(self.done, 0, joined=True)  # from here on, a missing aside is one that has got its name
        aside.replace(self.path)

    def _joined(self) -> Path:
        return self.path.with_name(self.path.name + ".joined")

    def _forget(self) -> None:
        """Remove what the job has kept beside the file; the count goes last, since rows without one are nobody's."""
        if self.partial.is_dir():
            for part in self.partial.iterdir():
                part.unlink()
            self.partial.rmdir()
        else:
            self.partial.unlink(missing_ok=True)
        self._joined().unlink(missing_ok=True)
        _new(self.progress).unlink(missing_ok=True)
        self.progress.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the file and lets others write it; what was written stays for the next run."""
        try:
            if self._file is not None:
                with self._disk():
                    self._file.close()
        finally:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _new(path: Path) -> Path:
    """Where the next content of `path` is written; only the holder of the lock does."""
    return path.with_name(path.name + ".new")


def _replace(path: Path, content: bytes) -> None:
    """The file with new content, whole in every moment."""
    aside = _new(path)
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_folder(path.absolute().parent)


def row_line(row: Mapping[str, Any], *, ascii: bool = False) -> str:
    """A row as JSON, with null for NaN and infinity."""
    try:
        line = json.dumps(row, ensure_ascii=ascii, default=str, allow_nan=False)
    except ValueError:
        line = json.dumps(finite(row), ensure_ascii=ascii, default=str, allow_nan=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate ("\\ud800" in JSON) has no UTF-8, but an escape
        return row_line(row, ascii=True)
    return line


def finite(value: object) -> object:
    """A JSON value with None for each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(entry) for name, entry in value.items()}
    return [finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def _cell(value: object) -> object:
    """A value as a CSV field: nothing for None and what is not finite, JSON for what is no plain value."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return value if isinstance(value, str | int | float) else json.dumps(finite(value), ensure_ascii=False, default=str)


def _parquet_column(values: list[Any]) -> object:
    """A column for pyarrow: numbers, texts and lists of numbers as they are, anything else as JSON."""
    import pyarrow

    if any(isinstance(value, dict) or (isinstance(value, list) and not _numbers(value)) for value in values):
        values = [
            None if value is None else json.dumps(finite(value), ensure_ascii=False, default=str) for value in values
        ]
    return pyarrow.array(values)


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)
