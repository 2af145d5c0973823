"""`cutaway label`: a local page on which the texts of a table are labelled and corrected."""

from __future__ import annotations

import socket
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutaway.commands.display import write
from cutaway.commands.option import Delimiter, Dtypes, Encoding, Offline, Revision, Threads, pipeline_arguments
from cutaway.commands.text_vectors import Column, Table, check_table_output, write_table
from cutaway.pipelines.row_faults import is_blank

if TYPE_CHECKING:
    from cutaway.texts.labelling import Labelling


def label(
    table: Table,
    column: Column = "text",
    label: Annotated[
        list[str] | None, typer.Option("--label", help="A label; repeat it. The model's, or the table's, unless given.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="The column with labels that are there already, to correct them.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A classifier that proposes; what it is least sure of comes first."),
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Where answers are kept; TABLE.labels.jsonl unless given.")
    ] = None,
    by: Annotated[str, typer.Option(help="Your name, noted with each answer.")] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="At the end, the table with labels: .csv .tsv .jsonl .parquet."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="Only write the output, from the answers so far.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 for any that is free.")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Label the texts of a table on a page of this machine; every answer is on the disk before the next text."""
    from cutaway.errors import InputError
    from cutaway.serve import require_packages
    from cutaway.texts.labelling import ENDING, Journal, Labelling
    from cutaway.texts.table import read_texts

    if no_page and output is None:
        raise typer.BadParameter("--no-page only writes the output: give --output.")
    if str(table) == "-":
        raise typer.BadParameter("texts from stdin have no place for a journal; give a file.")
    if not no_page:
        require_packages()
    check_table_output(output, overwrite)
    texts = read_texts(table, column, encoding=encoding, delimiter=delimiter)
    if texts.left_out:
        sys.stderr.write(texts.left_out_note() + "\n")
    given = _given(texts.values, texts.rows, label_column, texts.columns)
    load = pipeline_arguments(revision, offline, threads, dtype)
    own = _labels_of(model, load) if model is not None else []
    labels = list(label or own or dict.fromkeys(given.values()))
    if not labels:
        raise InputError("Say which labels there are: --label yes --label no; or --model, or --label-column.")
    if own and not set(own) & set(labels):
        raise InputError(f"{model} has none of these labels; it has {', '.join(own[:20])}.")
    path = journal or texts.path.with_name(texts.path.name + ENDING) if texts.path else journal
    assert path is not None
    if output is not None and not label_column and "label" in texts.columns:
        raise InputError("The table already has a column 'label': name it with --label-column, to correct it.")
    with Journal(path) as kept:
        labelling = Labelling(texts, labels, kept, given=given, by=by)
        if not no_page:
            _serve(labelling, f"Labels of {table.name}", port, model, load, open_)
        progress = labelling.progress()
        sys.stderr.write(
            f"{progress['labelled']:,} of {progress['texts']:,} texts have a label; the answers are in {path}, and the "
            "same command goes on.\n"
        )
        if output is not None:
            _write(output, table, encoding, delimiter, labelling, label_column or "label", texts.columns, overwrite)


def _given(values: list[dict[str, object]], rows: list[int], column: str | None, columns: list[str]) -> dict[int, str]:
    """The labels that the table has, by row."""
    from cutaway.errors import InputError

    if column is None:
        return {}
    if column not in columns:
        raise InputError(f"The table has no column {column!r}; it has {', '.join(map(repr, columns))}.")
    found = {row: one.get(column) for row, one in zip(rows, values, strict=True)}
    return {row: str(value).strip() for row, value in found.items() if not is_blank(value)}


def _labels_of(model: str, load: dict[str, object]) -> list[str]:
    """The labels of a classifier, from its config."""
    from cutaway.auto import AutoConfig
    from cutaway.commands.option import gguf_arguments
    from cutaway.errors import InputError

    more = load.get("model_kwargs")
    options = {name: load[name] for name in ("revision",) if name in load} | (
        dict(more) if isinstance(more, dict) else {}
    )
    place, options = gguf_arguments(model, options)
    config = AutoConfig.from_pretrained(place, **options)
    labels = [str(config.id2label[i]) for i in range(config.num_labels)]
    if len(labels) < 2:
        raise InputError(f"{model} is no classifier with labels (it has {len(labels)}); leave --model out.")
    return labels


def _serve(
    labelling: Labelling, title: str, port: int, model: str | None, load: dict[str, object], open_: bool
) -> None:
    from cutaway.pipelines import pipeline
    from cutaway.serve.screen import address_of
    from cutaway.texts.label_server import label_app, run

    if model is not None:
        labelling.start_scoring(pipeline("text-classification", model, **load))  # type: ignore[call-overload]
    with socket.create_server(("127.0.0.1", port)) as listener:
        address = address_of(listener)
        write(f"{address}  (Ctrl-C ends it; nothing is lost)")
        if open_:
            webbrowser.open(address)
        try:
            run(label_app(labelling, title, model=model is not None), listener)
        except KeyboardInterrupt:
            pass
        finally:
            labelling.stop()


def _write(
    path: Path,
    table: Path,
    encoding: str | None,
    delimiter: str | None,
    labelling: Labelling,
    column: str,
    columns: list[str],
    overwrite: bool,
) -> None:
    from cutaway.jobs import TableReader

    labels = labelling.labels_by_row()
    reader = TableReader(table, encoding=encoding, delimiter=delimiter)
    rows: list[dict[str, object]] = [
        {**row.values, column: labels.get(row.number, row.values.get(column))} for row in reader.rows()
    ]
    write_table(path, rows, list(dict.fromkeys([*columns, column])), overwrite)
