"""`cutaway bench`: how fast a model is on this machine."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from cutaway.commands.display import as_line, console, table_of, write
from cutaway.commands.option import (
    SENTIMENT,
    AsJson,
    Delimiter,
    Encoding,
    Offline,
    Revision,
    Threads,
    pipeline_arguments,
)
from cutaway.pipelines.row_faults import is_blank


def bench(
    model: Annotated[str, typer.Argument(help="A name, a folder, or a .gguf file.")] = SENTIMENT,
    dtype: Annotated[list[str] | None, typer.Option(help="A number format; repeat it. All if not given.")] = None,
    input: Annotated[
        Path | None, typer.Option("--input", "-i", help="Texts of your own: a table, or a .txt with one a line.")
    ] = None,
    column: Annotated[str, typer.Option(help="The column with the texts, or text=COLUMN.")] = "text",
    texts: Annotated[int, typer.Option(min=1, help="How many texts at most.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds; figures are medians over them.")] = 5,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
) -> None:
    """Measure how fast a model is here, in each number format."""
    load = pipeline_arguments(revision, offline, threads, None)
    import torch

    from cutaway import native  # after torch, whose OpenMP it takes
    from cutaway.errors import InputError
    from cutaway.evaluate import speed
    from cutaway.jobs import TableReader
    from cutaway.jobs.table_reader import way_to_column

    column = column.removeprefix("text=")
    inputs = speed.sentences(texts)
    if input is not None:
        reader = TableReader(input, encoding=encoding, delimiter=delimiter)
        if reader.columns is not None and column not in reader.columns:
            way = way_to_column(reader.columns, column, " Name the one with the texts with --column.")
            raise InputError(f"{input} has no column {column!r}; it has {', '.join(map(repr, reader.columns))}.{way}")
        rows = itertools.islice(reader.rows(), texts)
        inputs = [str(row.values[column]) for row in rows if not is_blank(row.values.get(column))]
    dtypes = dtype or ["float32", "bfloat16", "int8"]
    found = speed.measure(model, dtypes, inputs, rounds, **load)
    if as_json:
        figures = [vars(entry) for entry in found]
        where = {"threads": torch.get_num_threads(), "kernels": native.description()}
        write(as_line({"model": model, **where, "texts": len(inputs), "figures": figures}))
        return
    table = table_of("dtype", "load s>", "one text ms, p50>", "p99>", "tokens/s>", f"agreement with {dtypes[0]}>")
    for entry in found:
        if entry.error:
            table.add_row(entry.dtype, entry.error)
            continue
        times = (f"{entry.load_seconds:.2f}", f"{entry.p50_ms:.2f}", f"{entry.p99_ms:.2f}")
        table.add_row(entry.dtype, *times, f"{entry.tokens_per_second:,.0f}", f"{entry.agreement:.4f}")
    console().print(table)
    write(f"{torch.get_num_threads()} threads; medians of {rounds} rounds, formats in turns.")
    write(f"kernels: {native.description()}")
