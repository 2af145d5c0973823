"""`cutaway explain`: what a model does with a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.display import console
from cutaway.commands.observed import observed
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
from cutaway.commands.subject import Dark, TextOrTrace, check_outputs, write_outputs
from cutaway.jsonfile import write_text

if TYPE_CHECKING:
    from cutaway.inspect.explanation import Explanation


class Measure(StrEnum):
    """How the grid of heads is coloured."""

    entropy = "entropy"
    distance = "distance"
    focus = "focus"


def explain(
    text: TextOrTrace = None,
    model: ModelName = SENTIMENT,
    layer: Annotated[int | None, typer.Option(help="Layer of the head to show, from 0.")] = None,
    head: Annotated[int | None, typer.Option(help="Head to show, from 0; the sharpest one if not given.")] = None,
    attention: Annotated[str | None, typer.Option(help="encoder, decoder or cross, for an encoder-decoder.")] = None,
    token: Annotated[str | None, typer.Option(help="The token to follow: a word of the text, or an index.")] = None,
    measure: Annotated[Measure, typer.Option(help="What colours the grid of heads.")] = Measure.entropy,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="Also write a file: .png, .svg, .pdf, .html, .json, .npz, or .safetensors: a trace. May be repeated.",
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="The text to answer from, for a model that answers questions (TEXT).")
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option(help="How TEXT may go on, for a model that chooses; give it once for each.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=0, help="How many tokens a decoder writes.")] = 10,
    truncation: Truncation = False,
    dark: Dark = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Show what a model does with a text."""
    from cutaway.inspect.page import page
    from cutaway.inspect.plots import explanation
    from cutaway.inspect.plots.canvas import FORMATS

    paths = check_outputs(output, (*FORMATS, ".html", ".json", ".npz", ".safetensors"))
    endings = {path.suffix.lower() for path in paths}
    load = load_arguments(revision, offline, threads, dtype)
    asked = {"layer": layer, "head": head, "attention": attention, "token": token}
    it, trace = observed(
        text,
        model,
        asked,
        load,
        kept=".safetensors" in endings,
        max_new_tokens=max_new_tokens,
        truncation=truncation,
        context=context,
        choices=choice or (),
        evidence=".html" in endings,
        vector=not as_json,
    )
    if not as_json:
        from cutaway.inspect import terminal

        terminal.show(it, console(), measure=measure.value)
    writers: dict[str, Callable[[Path], object]] = {
        ".html": lambda path: page.save(it, path),
        ".json": lambda path: write_text(path, it.to_json() + "\n"),
    }
    if trace is not None:
        writers[".safetensors"] = replace(trace, explanation=it).save
    record = it.to_dict(patterns=False)
    write_outputs(paths, record, _arrays(it), lambda: explanation.draw(it, dark=dark), as_json, writers)


def _arrays(it: Explanation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, attention in it.attention.items():
        found[f"pattern_{name}"] = attention.pattern
        found.update({f"{measure}_{name}": values for measure, values in attention.measures.items()})
    for name, states in it.states.items():
        found.update({f"norm_{name}": states.norm, f"to_embedding_{name}": states.to_embedding})
    return found
