"""`cutaway dedupe`: rows of a table that say the same, and which of them to keep."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cutaway.commands.display import as_line, console, plain, table_of, write
from cutaway.commands.job_progress import JobProgress
from cutaway.commands.option import AsJson, Delimiter, Dtypes, Encoding, Offline, Revision, Threads
from cutaway.commands.text_vectors import (
    Column,
    Half,
    Source,
    Table,
    VectorFile,
    VectorModel,
    check_table_output,
    stopping,
    write_table,
)
from cutaway.show.label import clipped, printable

SHOWN, GROUPS = 120, 10  # characters of a text, and groups, in the terminal
OWN = ("group", "keep", "duplicate_of", "similarity", "kind")


class Keep(StrEnum):
    """Which row of a group stays."""

    first = "first"
    last = "last"
    longest = "longest"


def dedupe(
    table: Table,
    column: Column = "text",
    model: VectorModel = None,
    threshold: Annotated[float, typer.Option(help="The least cosine of near copies.")] = 0.95,
    exact: Annotated[bool, typer.Option("--exact", help="Only equal texts; no model runs.")] = False,
    keep: Annotated[Keep, typer.Option(help="Which row of a group stays.")] = Keep.first,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The table with its groups: .csv .tsv .jsonl .parquet.")
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Write only the rows that stay, with their own columns.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    vectors: VectorFile = None,
    half: Half = False,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Find exact and near copies of texts; the texts' vectors are computed once and kept beside the table."""
    from cutaway.errors import InputError
    from cutaway.texts.duplicates import dedupe as find

    if drop and output is None:
        raise typer.BadParameter("--drop is about the table to write: give --output.")
    if exact and (model is not None or half or vectors is not None):
        raise typer.BadParameter("--exact runs no model; leave --model, --vectors and --half out.")
    if not 0 < threshold <= 1:
        raise InputError(f"--threshold {threshold}: a cosine between 0 and 1, for example 0.95.")
    check_table_output(output, overwrite)
    source = Source(table, column, encoding, delimiter, model, vectors, half, revision, offline, threads, dtype)
    texts = source.read()
    clash = [name for name in OWN if name in texts.columns]
    if output is not None and not drop and clash:
        raise InputError(f"The table already has a column {clash[0]!r}; write with --drop, or rename it.")
    kept = None if exact else source.kept(texts, source.encoder())
    with stopping("Vectors are kept"), JobProgress(0, len(texts)) as progress:
        found = find(texts, vectors=kept, threshold=threshold, keep=keep.value, progress=progress)
    if as_json:
        groups = [{"keep": row, "copies": [vars(copy) for copy in group]} for row, group in found.groups.items()]
        write(as_line({"rows": found.rows, "copies": found.copies, "threshold": threshold, "groups": groups}))
    else:
        text = dict(zip(texts.rows, texts.texts, strict=True))
        largest = sorted(found.groups.items(), key=lambda one: (-len(one[1]), one[0]))
        shown = table_of("row>", "similarity>", column)
        for row, group in largest[:GROUPS]:
            shown.add_row(f"{row:,}", "kept", plain(printable(clipped(text[row], SHOWN)), "bold"))
            for copy in group[:GROUPS]:
                how = "equal" if copy.exact else f"{copy.similarity:.3f}"
                shown.add_row(f"{copy.row:,}", how, plain(printable(clipped(text[copy.row], SHOWN))))
        if found.groups:
            console().print(shown)
        more = f"; the {GROUPS} largest are shown" if len(largest) > GROUPS else ""
        write(f"{found.copies:,} of {found.rows:,} texts are copies, in {len(largest):,} groups{more}.")
    if output is None:
        return
    kept_for = found.kept_for()
    number = {row: i for i, row in enumerate(found.groups, start=1)}
    rows: list[dict[str, object]] = []
    for row, values in source.all_rows():
        if drop:
            if row not in kept_for:
                rows.append(values)
            continue
        own: tuple[object, ...] = (number.get(row), True, None, None, None)
        if row in kept_for:
            keeper, copy = kept_for[row]
            own = (number[keeper], False, keeper, copy.similarity, "exact" if copy.exact else "near")
        rows.append({**values, **dict(zip(OWN, own, strict=True))})
    write_table(output, rows, [*texts.columns, *(() if drop else OWN)], overwrite)
    if drop and texts.left_out:
        one = len(texts.left_out) == 1
        said = "row without a text stays" if one else "rows without a text stay"
        sys.stderr.write(f"{len(texts.left_out):,} {said} in the table.\n")
