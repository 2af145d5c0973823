"""`cutaway cluster`: the topics of a table's texts, with their words, typical texts and a map."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutaway.commands.display import as_line, console, plain, table_of, write
from cutaway.commands.file_names import check_folder
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
from cutaway.errors import counted
from cutaway.show.label import clipped, printable

if TYPE_CHECKING:
    from cutaway.texts.table import TextTable
    from cutaway.texts.topics import Topics

SHOWN = 160  # characters of a typical text in the terminal
PICTURES, PAGES, TABLES = (".png", ".svg", ".pdf"), (".html",), (".csv", ".tsv", ".jsonl", ".parquet")
OWN = ("topic", "topic_words", "nearness", "x", "y")


class Method(StrEnum):
    """How texts are grouped."""

    kmeans = "kmeans"
    hdbscan = "hdbscan"


class Map(StrEnum):
    """How the map is made."""

    auto = "auto"
    pca = "pca"
    umap = "umap"


class Loose(StrEnum):
    """What becomes of texts that fit no topic well."""

    keep = "keep"
    leave = "leave"


def cluster(
    table: Table,
    column: Column = "text",
    model: VectorModel = None,
    topics: Annotated[
        int | None, typer.Option(min=2, help="How many; one for 50 texts, at most 20, unless given.")
    ] = None,
    method: Annotated[
        Method, typer.Option(help="kmeans: every text has a topic; hdbscan: finds how many, texts between have none.")
    ] = Method.kmeans,
    words: Annotated[int, typer.Option(min=1, help="Words of each topic.")] = 10,
    loose: Annotated[
        Loose, typer.Option(help="Texts that fit no topic well: keep them in the nearest, or leave them in none.")
    ] = Loose.keep,
    map_: Annotated[Map, typer.Option("--map", help="pca, or umap where umap-learn is installed.")] = Map.auto,
    title: Annotated[
        str | None, typer.Option(help="Of the page and the picture; the table's name unless given.")
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="The picture on dark paper.")] = False,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="A page .html, a map .png .svg .pdf, the rows .csv .tsv .jsonl .parquet."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the tables that are written.")] = False,
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
    """Find the topics of texts that nobody has sorted; vectors are computed once and kept beside the table."""
    from cutaway.errors import InputError
    from cutaway.texts.topic_words import require_sklearn
    from cutaway.texts.topics import check_how, how_many
    from cutaway.texts.topics import cluster as find

    require_sklearn()
    check_how(method.value, map_.value, topics, loose.value)
    for path in output or []:
        _check_output(path, overwrite)
    source = Source(table, column, encoding, delimiter, model, vectors, half, revision, offline, threads, dtype)
    texts = source.read()
    how_many(len(texts), method.value, topics)
    clash = [name for name in OWN if name in texts.columns]
    if clash and any(path.suffix.lower() not in (*PICTURES, *PAGES) for path in output or []):
        raise InputError(f"The table already has a column {clash[0]!r}; rename it, or write a page.")
    encoder = source.encoder()
    kept = source.kept(texts, encoder)
    with stopping("Vectors are kept"):
        found = find(
            texts,
            vectors=kept,
            n_topics=topics,
            method=method.value,
            n_words=words,
            map=map_.value,
            loose=loose.value,
        )
    name = str(getattr(encoder.pipe.model, "name_or_path", "") or model or "a model")
    title = title or f"Topics of {table.name}"
    for path in output or []:
        _write(path, found, texts, source, title, name, dark, overwrite)
    if as_json:
        write(as_line(_record(found)))
        return
    _show(found, len(texts))


def _check_output(path: Path, overwrite: bool) -> None:
    from cutaway.errors import MissingExtraError

    ending = path.suffix.lower()
    check_folder(path)
    if ending in PICTURES:
        from importlib.util import find_spec

        if find_spec("matplotlib") is None:
            raise MissingExtraError("Pictures need matplotlib: pip install 'cutaway[plots]'.")
    elif ending not in PAGES:
        if ending not in TABLES:
            known = ", ".join((*PAGES, *PICTURES, *TABLES))
            raise typer.BadParameter(f"{path.name}: the name must end in one of {known}.")
        check_table_output(path, overwrite)


def _write(
    path: Path, found: Topics, texts: TextTable, source: Source, title: str, model: str, dark: bool, overwrite: bool
) -> None:
    from cutaway.texts import topic_page

    if path.suffix.lower() in PAGES:
        topic_page.write_page(path, found, texts, model, title)
        return
    if path.suffix.lower() in PICTURES:
        from cutaway.inspect.plots.canvas import save_figure

        save_figure(topic_page.picture(found, texts, title, model, dark=dark), path)
        return
    place = {row: i for i, row in enumerate(texts.rows)}
    words = {topic.number: " ".join(word for word, _ in topic.words) for topic in found.topics}
    rows: list[dict[str, object]] = []
    for row, values in source.all_rows():
        own: tuple[object, ...] = (None,) * len(OWN)
        if row in place:
            i = place[row]
            topic, (x, y) = int(found.of[i]), found.places[i].tolist()
            own = (topic or None, words.get(topic, ""), float(found.nearness[i]) if topic else None, x, y)
        rows.append({**values, **dict(zip(OWN, own, strict=True))})
    write_table(path, rows, [*texts.columns, *OWN], overwrite)


def _record(found: Topics) -> dict[str, object]:
    return {
        "method": found.method,
        "coherence": found.coherence,
        "none": int((found.of == 0).sum()),
        "loose": int(found.loose.sum()),
        "topics": [
            {
                **vars(topic),
                "name": topic.name,
                "words": [{"word": word, "weight": weight} for word, weight in topic.words],
                "typical": [{"row": row, "text": text} for row, text in topic.typical],
                "middle": list(topic.middle),
            }
            for topic in found.topics
        ],
    }


def _show(found: Topics, texts: int) -> None:
    shown = table_of("topic>", "texts>", "coherence>", "nearness>", "words and typical texts")
    for topic in found.topics:
        words = ", ".join(printable(word) for word, _ in topic.words)
        coherent = f"{topic.coherence:.2f}" if math.isfinite(topic.coherence) else ""
        figures = (str(topic.number), f"{topic.size:,}", coherent, f"{topic.nearness:.2f}")
        shown.add_row(*figures, plain(words or "no word is its own", "bold"))
        for row, text in topic.typical:
            shown.add_row("", "", "", "", plain(f"{printable(clipped(text, SHOWN))} (row {row})"))
    console().print(shown)
    without = int((found.of == 0).sum())
    said = f", {without:,} in none" if without else ""
    coherence = f"; mean coherence {found.coherence:.2f}" if math.isfinite(found.coherence) else ""
    write(f"{counted(texts, 'text')} in {counted(len(found.topics), 'topic')}{said}{coherence}.")
    if said := found.loose_note():
        write(said)
