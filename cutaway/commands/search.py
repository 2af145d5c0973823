"""`cutaway search`: the texts of a table that are nearest to a query in meaning."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cutaway.commands.display import as_line, console, plain, table_of, write
from cutaway.commands.option import AsJson, Delimiter, Dtypes, Encoding, Offline, Revision, Threads
from cutaway.commands.text_input import texts_or_stdin
from cutaway.commands.text_vectors import (
    Column,
    Half,
    Source,
    Table,
    VectorFile,
    VectorModel,
    check_table_output,
    write_table,
)
from cutaway.show.label import clipped, printable

SHOWN = 300  # characters of a text in the terminal


class Index(StrEnum):
    """How a query is compared with the texts."""

    exact = "exact"
    usearch = "usearch"


def search(
    table: Table,
    queries: Annotated[
        list[str] | None, typer.Argument(help="What to look for; without any, or with -, one per line from stdin.")
    ] = None,
    column: Column = "text",
    model: VectorModel = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many texts for each query.")] = 10,
    least: Annotated[float | None, typer.Option(help="Leave out texts whose score is lower.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write what was found: .csv .tsv .jsonl .parquet.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    vectors: VectorFile = None,
    half: Half = False,
    index: Annotated[
        Index, typer.Option(help="exact compares all texts; usearch is for more than a million of them.")
    ] = Index.exact,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Search a table by meaning; the texts' vectors are computed once and kept beside it."""
    asked = list(texts_or_stdin(queries, None, "A query is a text; the table comes first: cutaway search {} QUERY."))
    check_table_output(output, overwrite)
    source = Source(table, column, encoding, delimiter, model, vectors, half, revision, offline, threads, dtype)
    texts = source.read()
    if index is Index.usearch:
        _check_index()
    encoder = source.encoder()
    kept = source.kept(texts, encoder)

    from cutaway.texts.text_search import MANY, TextSearch

    if len(texts) > MANY and index is Index.exact:
        sys.stderr.write(f"{len(texts):,} texts are compared one by one; --index usearch is quicker.\n")
    found = TextSearch(texts, kept, encoder, index.value)(asked, top_k, least)
    rows: list[dict[str, object]] = []
    for query, hits in zip(asked, found, strict=True):
        rows += [
            {"query": query, "rank": rank, "score": hit.score, "row": hit.row, **_apart(hit.values)}
            for rank, hit in enumerate(hits, start=1)
        ]
        if as_json:
            write(as_line({"query": query, "hits": [{"row": h.row, "score": h.score, "text": h.text} for h in hits]}))
            continue
        if len(asked) > 1:
            console().print(plain(printable(query), "bold"), soft_wrap=True)
        shown = table_of("score>", "row>", column)
        for hit in hits:
            shown.add_row(f"{hit.score:.3f}", f"{hit.row:,}", plain(printable(clipped(hit.text, SHOWN))))
        console().print(shown) if hits else write(f"No text scores {least} or more.")
    if output is not None:
        write_table(output, rows, [*OWN, *(_named(name) for name in texts.columns)], overwrite)


OWN = ("query", "rank", "score", "row")


def _named(column: str) -> str:
    return f"table_{column}" if column in OWN else column


def _apart(values: object) -> dict[str, object]:
    """A row's columns, renamed where they would hide one of the answer's."""
    assert hasattr(values, "items")
    return {_named(name): value for name, value in values.items()}


def _check_index() -> None:
    from importlib.util import find_spec

    from cutaway.errors import MissingExtraError

    if find_spec("usearch") is None:
        raise MissingExtraError("This index needs usearch: pip install 'cutaway[index]'.")
