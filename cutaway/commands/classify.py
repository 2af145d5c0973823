"""`cutaway classify`: labels for texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from cutaway.commands.display import as_line, console, plain, write
from cutaway.commands.option import (
    SENTIMENT,
    AsJson,
    Dtypes,
    ModelName,
    Offline,
    Revision,
    Texts,
    Threads,
    Truncation,
    load_arguments,
)
from cutaway.commands.text_input import texts_or_stdin


def classify(
    texts: Texts = None,
    model: ModelName = SENTIMENT,
    top_k: Annotated[int | None, typer.Option(min=1, help="How many labels to print; all if not given.")] = None,
    truncation: Truncation = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Label texts, with a score for each label."""
    inputs = texts_or_stdin(texts)
    load = load_arguments(revision, offline, threads, dtype)
    from cutaway.auto import AutoModelForSequenceClassification, AutoTokenizer
    from cutaway.inspect.label import printable
    from cutaway.pipelines import pipeline

    pipe = pipeline(
        "text-classification",
        model=AutoModelForSequenceClassification.from_pretrained(model, **load),
        tokenizer=AutoTokenizer.from_pretrained(model, **{k: v for k, v in load.items() if k != "dtype"}),
    )
    kept: list[str] = []

    def stream() -> Iterator[str]:
        for text in inputs:
            kept.append(text)
            yield text

    screen = console()
    for answers in pipe(stream(), top_k=top_k, truncation=truncation):
        text = kept.pop(0)
        if as_json:
            write(as_line({"text": text, "labels": answers}))
        else:
            scores = "  ".join(f"{printable(entry['label'])} {entry['score']:.4f}" for entry in answers)
            screen.print(plain(f"{scores}  {printable(text)}"), soft_wrap=True)
