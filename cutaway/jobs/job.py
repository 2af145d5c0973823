"""A job: the rows of a table through a pipeline, each with its answer or with its error."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cutaway.errors import InputError
from cutaway.jobs.answers import Answers
from cutaway.jobs.table_reader import Row, TableReader, way_to_column
from cutaway.jobs.table_writer import TableWriter
from cutaway.pipelines.row_faults import has_blank

ERROR = "error"


@dataclass(frozen=True)
class Summary:
    """rows: of the whole file. before: of these, done by an earlier run. failed: rows of this run with an error.

    blank: the numbers of this run's rows whose text is blank: they have neither an answer nor an error.
    """

    rows: int
    before: int
    failed: int
    blank: tuple[int, ...] = ()


@dataclass
class Job:
    """A pipeline over rows.

    Attributes:
        pipe: the pipeline; called with a list of inputs it gives a list with one answer each. None until it is loaded.
        answers: what the task reads and writes.
        renamed: what the table calls the columns that the task reads.
        constant: columns with the same value in every row.
        prefix: put before the names of the answer's columns.
        settings: of each call of the pipeline.
    """

    pipe: Callable[..., Any] | None
    answers: Answers
    renamed: Mapping[str, str] = field(default_factory=dict)
    constant: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def run(
        self, reader: TableReader, writer: TableWriter, progress: Callable[[int, int], None] = lambda rows, failed: None
    ) -> Summary:
        """Scores what is not yet written. `progress` is told the rows done and those with an error.

        Stopped at any moment, by Ctrl-C too, the next run of the same job goes on after the last rows on the disk.
        """
        before, failed = writer.done, 0
        blank: list[int] = []
        columns = None if reader.columns is None else self.check(reader.columns)
        try:
            for scored in self.stream(self._noting(self._chunks(reader, before), blank)):
                failed += sum(bool(row[self.prefix + ERROR]) for row in scored)
                writer.write(scored, columns or list(dict.fromkeys(name for row in scored for name in row)))
                progress(writer.done, failed)
            if columns is not None and writer.columns is None:
                writer.write([], columns)
            writer.finish()
        finally:
            writer.close()
        return Summary(writer.done, before, failed, tuple(blank))

    def rows(self, reader: TableReader, blank: list[int] | None = None) -> Iterator[dict[str, Any]]:
        """Every row with its answer, one after the other. blank: a list that gets the numbers of blank rows."""
        for scored in self.stream(self._noting(self._chunks(reader, 0), [] if blank is None else blank)):
            yield from scored

    def _noting(self, chunks: Iterator[list[Row]], blank: list[int]) -> Iterator[list[Row]]:
        """The chunks as they are; `blank` gets the numbers of rows without a text."""
        for chunk in chunks:
            blank.extend(row.number for row in chunk if self._is_blank(row))
            yield chunk

    def _is_blank(self, row: Row) -> bool:
        """Whether a column that the task reads is there and blank; one that is not there is an error of the row."""
        values = {**row.values, **self.constant}
        return not row.error and has_blank(values, self.answers.reads, self.answers.optional, self.renamed)

    def _chunks(self, reader: TableReader, start: int) -> Iterator[list[Row]]:
        rows = reader.rows(start)
        while chunk := list(itertools.islice(rows, self.answers.at_once)):
            yield chunk

    def stream(self, chunks: Iterator[list[Row]]) -> Iterator[list[dict[str, Any]]]:
        """`scored` of each chunk, in order."""
        return map(self.scored, chunks)

    def check(self, columns: Sequence[str], option: str = "") -> list[str]:
        """The columns of the output for those of the input.

        option: the command's, which gives all rows the same of the first column that the task reads.

        Raises InputError: the table lacks a column that the task reads, or has one that the answer would write.
        """
        for name in self.answers.reads:
            column = self.renamed.get(name, name)
            needed = name not in self.answers.optional or name in self.renamed
            if needed and name not in self.constant and column not in columns:
                listed = ' (a JSON list: ["a", "b"])' if name in self.answers.lists else ""
                same = f", or give one for all rows: {option} TEXT" if option and name == self.answers.reads[0] else ""
                what = name.replace("_", " ") + listed
                named = f" Name the one that holds the {what} with --column {name}=NAME{same}."
                way = way_to_column(columns, column, named)
                raise InputError(f"The table has no column {column!r}; it has {', '.join(map(repr, columns))}.{way}")
        for name in self.writes():
            if name in columns:
                raise InputError(f"The table already has a column {name!r}. Give the answers' columns a --prefix.")
        return [*columns, *self.writes()]

    def writes(self) -> list[str]:
        """The columns that are added: the answer's, and the error."""
        return [self.prefix + name for name in (*self.answers.writes, ERROR)]

    def scored(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Each row's values with its answer, or with None and its error; a blank text has neither.

        Raises InputError while `pipe` is None.
        """
        if self.pipe is None:
            raise InputError("The job has no pipeline yet: set its pipe.")
        items: dict[int, Any] = {}
        errors: dict[int, str] = {}
        for place, row in enumerate(rows):
            if self._is_blank(row):
                continue
            try:
                if row.error:
                    raise InputError(row.error)
                items[place] = self.answers.item({**row.values, **self.constant}, self.renamed)
            except InputError as error:
                errors[place] = str(error)
        found = dict(self._answered(list(items.items()), errors))
        names, missing = self.writes(), (None,) * len(self.answers.writes)
        return [
            {**row.values, **dict(zip(names, (*found.get(place, missing), errors.get(place, "")), strict=True))}
            for place, row in enumerate(rows)
        ]

    def _answered(self, items: list[tuple[int, Any]], errors: dict[int, str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Answers by place; where a call fails, its halves are tried, so that only the rows at fault get the error."""
        if not items:
            return
        try:
            assert self.pipe is not None
            inputs = [item for _, item in items]
            # some of our pipelines give no list for a list of one, as upstream; of a stream every input has its answer
            alone = len(inputs) == 1 and hasattr(self.pipe, "each")
            answers = self.pipe(iter(inputs) if alone else inputs, **self.settings)
            found = [
                (place, _finite(self.answers.columns(answer)))
                for (place, _), answer in zip(items, answers, strict=True)
            ]
        except MemoryError:
            raise
        except Exception as error:
            if len(items) == 1:
                errors[items[0][0]] = " ".join(str(error).split()) or type(error).__name__
                return
            middle = len(items) // 2
            yield from self._answered(items[:middle], errors)
            yield from self._answered(items[middle:], errors)
        else:
            yield from found


def _finite(columns: tuple[Any, ...]) -> tuple[Any, ...]:
    """The columns of an answer. Raises InputError where a number in it is not finite: then it answers nothing."""
    waiting: list[Any] = [*columns]
    while waiting:
        value = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"the model's answer holds {value}, which is no number to go by; try --dtype float32")
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return columns
