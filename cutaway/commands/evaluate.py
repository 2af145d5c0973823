"""`cutaway evaluate`: how good a model is on a table with right answers, alone or beside another model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cutaway.commands.display import as_line, console, table_of, write
from cutaway.commands.option import (
    AsJson,
    Delimiter,
    Dtypes,
    Encoding,
    Offline,
    Revision,
    Threads,
    pipeline_arguments,
)
from cutaway.jsonfile import write_text


def evaluate(
    model: Annotated[str, typer.Argument(help="A name, a folder, or a .gguf file.")],
    data: Annotated[Path, typer.Argument(help="A table: .csv .tsv .jsonl .parquet, or .txt for perplexity.")],
    task: Annotated[str, typer.Option(help="The pipeline's task.")] = "text-classification",
    column: Annotated[list[str] | None, typer.Option(help="NAME=COLUMN, for example label=stars. Repeatable.")] = None,
    against: Annotated[str | None, typer.Option(help="A second model, compared on the same rows.")] = None,
    output: Annotated[
        list[Path] | None, typer.Option("--output", "-o", help="Also write .json, or .png, .svg, .pdf. Repeatable.")
    ] = None,
    truncation: Annotated[bool, typer.Option("--truncation", help="Cut texts over the model's length.")] = False,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Measure a model on a table with right answers."""
    from cutaway.errors import InputError
    from cutaway.jobs import TableReader

    for path in output or []:
        if path.suffix.lower() not in (".json", ".png", ".svg", ".pdf"):
            raise typer.BadParameter(f"{path.name}: the name must end in .json, .png, .svg or .pdf.")
    pairs = [entry.partition("=") for entry in column or []]
    if any(not mark for _, mark, _ in pairs):
        raise typer.BadParameter("--column takes NAME=COLUMN, for example --column label=stars.")
    reader = TableReader(data, encoding=encoding, delimiter=delimiter)
    columns = {name: value for name, _, value in pairs}
    rows = list(reader.rows())
    broken = next((f"Row {i} of {data}: {row.error}." for i, row in enumerate(rows) if row.error), None)
    if broken:
        raise InputError(broken)
    options = pipeline_arguments(revision, offline, threads, dtype)
    if truncation:
        options["truncation"] = True

    from cutaway.evaluate import Evaluation, compare
    from cutaway.evaluate import evaluate as run
    from cutaway.pipelines import pipeline

    _check_columns(reader.columns, task, columns)

    def measured(name: str) -> Evaluation:
        sys.stderr.write(f"{name}: {len(rows):,} rows\n")
        return run(pipeline(task, name, **options), [row.values for row in rows], columns=columns)

    names = [model, *([against] if against else [])]
    found = [(name, measured(name)) for name in names]
    record: dict[str, Any] = {"models": [{"model": name, **evaluation.to_dict()} for name, evaluation in found]}
    if against:
        record["comparison"] = [vars(entry) for entry in compare(found[0][1], found[1][1])]
    for path in output or []:
        if path.suffix.lower() == ".json":
            write_text(path, json.dumps(record, indent=1) + "\n")
        else:
            from cutaway.evaluate import pictures

            pictures.save(found[0][1], path)
    write(as_line(record)) if as_json else _show(found, record.get("comparison", []))


def _check_columns(columns: list[str] | None, task: str, renamed: dict[str, str]) -> None:
    """Raises InputError where the table lacks a column that its header seems to hold between other marks."""
    from cutaway.errors import InputError
    from cutaway.evaluate.scoring import SCORERS
    from cutaway.jobs.table_reader import divided_by

    for name in SCORERS[task].reads if columns is not None and task in SCORERS else ():
        column = renamed.get(name, name)
        if columns is not None and column not in columns and (way := divided_by(columns, column)):
            raise InputError(f"The table has no column {column!r}; it has {', '.join(map(repr, columns))}.{way}")


def _show(found: list[tuple[str, Any]], comparison: list[dict[str, Any]]) -> None:
    table = table_of("measure", *(f"{name}>" for name, _ in found))
    for measure in found[0][1].measures:
        cells = []
        for _, evaluation in found:
            ends = evaluation.intervals.get(measure)
            spread = f"  [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""
            cells.append(f"{evaluation.measures[measure]:.4f}{spread}")
        table.add_row(measure, *cells)
    console().print(table)
    for entry in comparison:
        low, high = entry["interval"]
        write(
            f"{entry['measure']}: {entry['difference']:+.4f} [{low:+.4f}, {high:+.4f}], p = {entry['p_value']:.2g}, "
            f"better on {entry['wins']:,} rows, worse on {entry['losses']:,}"
        )
