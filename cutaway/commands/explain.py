"""`cutaway explain`: what a model does with a text."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cutaway.commands.display import console, write
from cutaway.commands.option import (
    SENTIMENT,
    AsJson,
    Dtypes,
    ModelName,
    Offline,
    Revision,
    Threads,
    Truncation,
    load_arguments,
)
from cutaway.commands.text_input import lines
from cutaway.errors import InputError


class Measure(StrEnum):
    """How the grid of heads is coloured."""

    entropy = "entropy"
    distance = "distance"
    focus = "focus"


def explain(
    text: Annotated[str | None, typer.Argument(help="The text; without it, or with -, all of stdin.")] = None,
    model: ModelName = SENTIMENT,
    layer: Annotated[int | None, typer.Option(help="Layer of the head to show, from 0.")] = None,
    head: Annotated[int | None, typer.Option(help="Head to show, from 0; the sharpest one if not given.")] = None,
    attention: Annotated[str | None, typer.Option(help="encoder, decoder or cross, for an encoder-decoder.")] = None,
    token: Annotated[str | None, typer.Option(help="The token to follow: a word of the text, or an index.")] = None,
    measure: Annotated[Measure, typer.Option(help="What colours the grid of heads.")] = Measure.entropy,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Also write a file: .png, .svg, .pdf, .html or .json. May be repeated."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=0, help="How many tokens a decoder writes.")] = 10,
    truncation: Truncation = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Show what a model does with a text."""
    from cutaway.inspect import pictures
    from cutaway.inspect.canvas import FORMATS

    known = (*FORMATS, ".html", ".json")
    for path in output or []:
        if path.suffix.lower() not in known:
            raise typer.BadParameter(f"{path.name}: the name must end in one of {', '.join(known)}.")
        if not path.absolute().parent.is_dir():
            raise typer.BadParameter(f"{path}: there is no folder {path.absolute().parent}.")
    text = "\n".join(lines()).strip() if text in (None, "-") else text
    if not text or not text.strip():
        raise InputError("The text is empty: there is nothing to explain. Give at least one word.")
    load = load_arguments(revision, offline, threads, dtype)

    from cutaway.inspect.explainer import explain as run

    explanation = run(
        text,
        model,
        layer=layer,
        head=head,
        attention=attention,
        token=token,
        max_new_tokens=max_new_tokens,
        truncation=truncation,
        evidence=any(path.suffix.lower() == ".html" for path in output or []),
        **load,
    )
    if as_json:
        write(explanation.to_json(patterns=False))
    else:
        from cutaway.inspect import terminal

        terminal.show(explanation, console(), measure=measure.value)
    for path in output or []:
        if path.suffix.lower() == ".html":
            from cutaway.inspect import page

            page.save(explanation, path)
        elif path.suffix.lower() == ".json":
            path.write_text(explanation.to_json() + "\n", encoding="utf-8")
        else:
            pictures.save(explanation, path)
    if output and not as_json:
        write("\nWrote " + ", ".join(str(path) for path in output))
