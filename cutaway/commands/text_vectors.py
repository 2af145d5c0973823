"""What the commands over texts without labels share: options, the table, the model, its vectors with progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutaway.commands.default_model import default_embedder
from cutaway.commands.file_names import check_folder
from cutaway.commands.job_progress import JobProgress
from cutaway.commands.option import Dtype, load_arguments, pipeline_arguments
from cutaway.errors import counted

if TYPE_CHECKING:
    from cutaway.pipelines.embedder import Embedder
    from cutaway.texts.table import TextTable
    from cutaway.texts.vectors import TextVectors

STOPPED = 130  # what a shell calls a program that Ctrl-C ended

Table = Annotated[Path, typer.Argument(help="A table: .csv .tsv .jsonl .parquet .xlsx, or .txt, a text a line.")]
Column = Annotated[str, typer.Option(help="The column with the texts.")]
VectorModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="What makes vectors: a name or a folder; all-MiniLM-L6-v2 unless given."),
]
VectorFile = Annotated[Path | None, typer.Option(help="Where vectors are kept; TABLE.vectors unless given.")]
Half = Annotated[bool, typer.Option("--half", help="Keep vectors in float16: half the size, exact to three digits.")]


@dataclass(frozen=True)
class Source:
    """How a command is told of its table, its model and their vectors; the options of the same names."""

    table: Path
    column: str
    encoding: str | None
    delimiter: str | None
    model: str | None
    vectors: Path | None
    half: bool
    revision: str | None
    offline: bool
    threads: int | None
    dtype: Dtype | None

    def read(self) -> TextTable:
        """The texts; what is left out is said."""
        from cutaway.texts.table import read_texts

        found = read_texts(self.table, self.column, encoding=self.encoding, delimiter=self.delimiter)
        if found.left_out:
            sys.stderr.write(found.left_out_note() + "\n")
        return found

    def all_rows(self) -> Iterator[tuple[int, dict[str, object]]]:
        """Every row of the table with its number, those without a text too: none is lost."""
        from cutaway.jobs import TableReader

        if str(self.table) == "-":
            raise typer.BadParameter("a table from stdin is read once; give a file to write it anew.")
        reader = TableReader(self.table, encoding=self.encoding, delimiter=self.delimiter)
        for row in reader.rows():
            yield row.number, row.values

    def encoder(self) -> Embedder:
        """The model."""
        from cutaway.pipelines.embedder import Embedder

        load = pipeline_arguments(self.revision, self.offline, self.threads, self.dtype)
        name = self.model or default_embedder(load_arguments(self.revision, self.offline, None, None))
        return Embedder(name, **load)

    def kept(self, texts: TextTable, encoder: Embedder) -> TextVectors:
        """The texts' vectors, from their file or computed; Ctrl-C says what is kept."""
        from cutaway.texts.vectors import text_vectors, vectors_beside

        check_folder(self.vectors)
        file = self.vectors or vectors_beside(texts)
        with stopping(f"The vectors so far are kept in {file}.partial" if file else "Nothing is kept"):
            progress = JobProgress(0, len(texts))
            with progress:
                return text_vectors(texts, encoder, file, store="float16" if self.half else None, progress=progress)


@contextmanager
def stopping(kept: str) -> Iterator[None]:
    """Inside, Ctrl-C ends the command with one line that says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"Stopped. {kept}; the same command goes on.\n")
        raise typer.Exit(STOPPED) from None


def check_table_output(path: Path | None, overwrite: bool) -> None:
    """What can be known of a table to write, before the work."""
    if path is None:
        return
    from cutaway.jobs import TableWriter

    TableWriter(path, {"command": "check"}, overwrite=overwrite).close()


def write_table(path: Path, rows: list[dict[str, object]], columns: list[str], overwrite: bool) -> None:
    """Write a table, whole or not at all."""
    from cutaway.jobs import TableWriter

    with TableWriter(path, {"command": sys.argv[1:]}, overwrite=overwrite) as writer:
        writer.write(rows, columns)
        writer.finish()
    sys.stderr.write(f"{path}: {counted(len(rows), 'row')}\n")
