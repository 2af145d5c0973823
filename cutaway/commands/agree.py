"""`cutaway agree`: how far two annotators or models agree, and where they differ."""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.display import as_line, console, plain, table_of, write
from cutaway.commands.option import AsJson, Delimiter, Dtypes, Encoding, Offline, Revision, Threads, pipeline_arguments
from cutaway.commands.text_vectors import check_table_output, write_table
from cutaway.errors import counted
from cutaway.pipelines.row_faults import is_blank
from cutaway.show.label import clipped, printable

if TYPE_CHECKING:
    from cutaway.texts.agreement import Agreement, PairAgreement

SHOWN, ROWS, LABELS = 120, 10, 20  # characters of a text, rows that differ, and labels, in the terminal


class Level(StrEnum):
    """How labels differ."""

    nominal = "nominal"
    ordinal = "ordinal"
    interval = "interval"


def agree(
    sources: Annotated[
        list[str], typer.Argument(metavar="A B [C ...]", help="Tables with labels of the same rows; or a model.")
    ],
    column: Annotated[str, typer.Option(help="The column with the texts, for what is shown and for models.")] = "text",
    label: Annotated[
        list[str] | None, typer.Option(help="The column with the labels; repeat it for one of each table, in order.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The column that says which rows belong together; their order unless given.")
    ] = None,
    level: Annotated[
        Level, typer.Option(help="nominal, ordinal or interval: how labels differ, for alpha.")
    ] = Level.nominal,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The rows that differ: .csv .tsv .jsonl .parquet.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Compare annotators or models: kappa, alpha, each label, and the rows on which they differ.

    One table with several columns of labels: cutaway agree TABLE TABLE --label first --label second.
    """
    from cutaway.errors import InputError
    from cutaway.texts.agreement import agree as compare

    if len(sources) < 2:
        raise typer.BadParameter("give two tables or more, or a table and a model.")
    labels = label or ["label"]
    if len(labels) == 1:
        labels = labels * len(sources)
    if len(labels) != len(sources):
        raise typer.BadParameter(f"--label is given {len(labels)} times for {len(sources)} tables; give one, or each.")
    check_table_output(output, overwrite)
    told = _read(sources, labels, column, key, encoding, delimiter)
    models = [name for name, one in zip(sources, told.given, strict=True) if one is None]
    if models:
        load = pipeline_arguments(revision, offline, threads, dtype)
        for place, name in enumerate(sources):
            if told.given[place] is None:
                told.given[place] = _of_model(name, told.texts, load, column)
    annotators = [one for one in told.given if one is not None]
    found = compare(*annotators, level=level.value)
    alike = _alike(found.names)
    if alike:
        said = "; ".join(" and ".join(map(repr, names)) for names in alike[:3])
        _say(f"Note: labels that differ only in case or spaces count as different: {said}. Write them in one way.")
    names = _names(sources, labels)
    if not any(len(set(row) - {None}) > 1 for row in zip(*annotators, strict=True)):
        sys.stderr.write("They agree on every row.\n")
    differ = [i for i, row in enumerate(zip(*annotators, strict=True)) if len(set(row) - {None}) > 1]
    rows: list[dict[str, object]] = [
        {
            "row": told.keys[i],
            **({column: told.texts[i]} if told.texts else {}),
            **{name: one[i] for name, one in zip(names, annotators, strict=True)},
        }
        for i in differ
    ]
    if as_json:
        write(as_line({"items": len(told.keys), **_record(found, names), "differ": rows}))
    else:
        _show(found, names, rows, column, len(told.keys))
    if output is not None:
        if len(set(names) | {"row", column}) != len(names) + 2:
            raise InputError("The columns of the output would have one name twice; call the text's with --column.")
        write_table(output, rows, ["row", *([column] if told.texts else []), *names], overwrite)


class _Told:
    """What the tables say: keys of the items, their texts, and each one's labels (None: a model)."""

    def __init__(self) -> None:
        self.keys: list[object] = []
        self.texts: list[str] = []
        self.given: list[list[str | None] | None] = []


def _is_table(source: str) -> bool:
    from cutaway.jobs.table_reader import KINDS

    return Path(source).suffix.lower() in KINDS


def _read(
    sources: list[str], labels: list[str], column: str, key: str | None, encoding: str | None, delimiter: str | None
) -> _Told:
    from cutaway.errors import InputError
    from cutaway.jobs import TableReader
    from cutaway.jobs.table_reader import way_to_column
    from cutaway.texts.agreement import matched

    tables = [(source, name) for source, name in zip(sources, labels, strict=True) if _is_table(source)]
    if not tables:
        raise InputError(f"{' and '.join(sources)}: none is a table, and models need one with the texts to label.")
    read: dict[str, list[dict[str, Any]]] = {}
    numbers: dict[str, list[int]] = {}
    for source, name in tables:
        if source not in read:
            reader = TableReader(source, encoding=encoding, delimiter=delimiter)
            rows = list(reader.rows())
            bad = next((f"{source}, row {row.number}: {row.error}." for row in rows if row.error), None)
            if bad:
                raise InputError(bad)
            read[source], numbers[source] = [row.values for row in rows], [row.number for row in rows]
        columns = list(dict.fromkeys(name for row in read[source] for name in row))
        for wanted, option in ((name, "--label"), *([(key, "--key")] if key else [])):
            if wanted not in columns:
                way = way_to_column(columns, wanted, f" Name the right one with {option}.")
                raise InputError(f"{source} has no column {wanted!r}; it has {', '.join(map(repr, columns))}.{way}")
    told = _Told()
    if key is None:
        sizes = {source: len(rows) for source, rows in read.items()}
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{source} {size:,}" for source, size in sizes.items())
            raise InputError(f"The tables have different numbers of rows ({said}). Say which belong together: --key.")
        told.keys = list(numbers[tables[0][0]])  # of the first table, whose blank lines may lie elsewhere
        by_key = {source: dict(zip(told.keys, rows, strict=True)) for source, rows in read.items()}
    else:
        told.keys = list(matched([[row.get(key) for row in rows] for rows in read.values()], _say))
        by_key = {source: {row.get(key): row for row in rows} for source, rows in read.items()}
    lines = [by_key[tables[0][0]][one] for one in told.keys]
    texts = [row.get(column) for row in lines]
    if any(isinstance(text, str) and not is_blank(text) for text in texts):
        told.texts = ["" if is_blank(text) else str(text) for text in texts]
    for source, name in zip(sources, labels, strict=True):
        table = by_key.get(source)
        told.given.append(None if table is None else [_label(table[one].get(name)) for one in told.keys])
    return told


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _label(value: object) -> str | None:
    """A cell as a label: 3, 3.0 and "3" are one, and an empty one is none."""
    if is_blank(value):
        return None
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _alike(names: list[str]) -> list[list[str]]:
    """Labels that are one but for case and spaces."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault("".join(name.split()).casefold(), []).append(name)
    return [found for found in kinds.values() if len(found) > 1]


def _of_model(name: str, texts: list[str], load: dict[str, Any], column: str) -> list[str | None]:
    """A classifier's label for each text; None for a blank one, as for a cell without a label."""
    from cutaway.errors import InputError
    from cutaway.pipelines import pipeline

    if not texts:
        raise InputError(
            f"{name} is taken for a model, and the table has no texts in {column!r}: name it with --column."
        )
    there = [place for place, text in enumerate(texts) if text]
    sys.stderr.write(f"{name}: {counted(len(there), 'row')}\n")
    answers = pipeline("text-classification", name, truncation=True, **load)([texts[place] for place in there])
    found: list[str | None] = [None] * len(texts)
    for place, answer in zip(there, answers, strict=True):
        found[place] = _label(answer["label"])
    return found


def _names(sources: list[str], labels: list[str]) -> list[str]:
    """A short name for each, none twice."""
    names = [Path(source).stem if _is_table(source) else source for source in sources]
    if len(set(names)) < len(names):
        names = [f"{name}:{label}" for name, label in zip(names, labels, strict=True)]
    return names if len(set(names)) == len(names) else [f"{name}#{i}" for i, name in enumerate(names, start=1)]


def _record(found: Agreement, names: list[str]) -> dict[str, Any]:
    def pair(one: PairAgreement) -> dict[str, Any]:
        return {
            **vars(one),
            "first": names[one.first],
            "second": names[one.second],
            "labels": [vars(label) for label in one.labels],
            "confusion": one.confusion.tolist(),
            "differ": [i + 1 for i in one.differ],
        }

    return {
        "labels": found.names,
        "level": found.level,
        "alpha": found.alpha,
        "interval": list(found.interval),
        "sentence": found.sentence(),
        "pairs": [pair(one) for one in found.pairs],
    }


def _show(found: Agreement, names: list[str], rows: list[dict[str, object]], column: str, items: int) -> None:
    low, high = found.interval
    alpha = f"Krippendorff's alpha ({found.level})  {found.alpha:.4f}  [{low:.4f}, {high:.4f}]"
    write(f"{alpha}  over {counted(items, 'row')}")
    write(found.sentence())
    for pair in found.pairs:
        first, second = printable(names[pair.first]), printable(names[pair.second])
        write("")
        write(
            f"{first} and {second}: Cohen's kappa {pair.kappa:.4f} [{pair.interval[0]:.4f}, {pair.interval[1]:.4f}]; "
            f"equal on {pair.observed:.1%} of {counted(pair.items, 'row')}, by chance on {pair.expected:.1%}"
        )
        table = table_of("label", f"{first}>", f"{second}>", "both>", "agreement>", "kappa>")
        shown = sorted(pair.labels, key=lambda one: -one.first - one.second)[:LABELS]
        for one in [label for label in pair.labels if label in shown]:
            counts = (f"{n:,}" for n in (one.first, one.second, one.both))
            table.add_row(plain(printable(one.label)), *counts, f"{one.agreement:.4f}", f"{one.kappa:.4f}")
        console().print(table)
        crossed = [
            (int(count), found.names[i], found.names[j])
            for (i, j), count in ((at, pair.confusion[at]) for at in zip(*pair.confusion.nonzero(), strict=True))
            if i != j
        ]
        for count, one_label, other in sorted(crossed, key=lambda entry: -entry[0])[:ROWS]:
            write(f"  {counted(count, 'time')} {first} said {printable(one_label)}, {second} {printable(other)}")
    if not rows:
        return
    write("")
    table = table_of("row>", *names, column)
    for row in rows[:ROWS]:
        given = (plain(printable(str(row[name] if row[name] is not None else ""))) for name in names)
        table.add_row(
            plain(printable(str(row["row"]))), *given, plain(printable(clipped(str(row.get(column, "")), SHOWN)))
        )
    console().print(table)
    if len(rows) > ROWS:
        write(f"{ROWS} of {len(rows):,} rows on which they differ; -o FILE writes all.")
