"""`cutaway attend`: where a model's attention goes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.display import console
from cutaway.commands.explain import Measure
from cutaway.commands.observed import observed
from cutaway.commands.option import SENTIMENT, AsJson, Dtypes, ModelName, Offline, Revision, Threads, load_arguments
from cutaway.commands.subject import Dark, Outputs, TextOrTrace, check_outputs, write_outputs
from cutaway.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cutaway.inspect.explanation import Attention, Explanation


class View(StrEnum):
    """What the picture shows."""

    matrix = "matrix"
    lines = "lines"
    atlas = "atlas"
    rollout = "rollout"


def attend(
    text: TextOrTrace = None,
    model: ModelName = SENTIMENT,
    layer: Annotated[int | None, typer.Option(help="Layer of the head to show, from 0.")] = None,
    head: Annotated[int | None, typer.Option(help="Head to show, from 0; the sharpest one if not given.")] = None,
    attention: Annotated[str | None, typer.Option(help="encoder, decoder or cross, for an encoder-decoder.")] = None,
    view: Annotated[View, typer.Option(help="What the picture shows.")] = View.matrix,
    measure: Annotated[Measure, typer.Option(help="What colours the grid of heads.")] = Measure.entropy,
    max_new_tokens: Annotated[int, typer.Option(min=0, help="How many tokens a decoder writes first.")] = 0,
    output: Outputs = None,
    dark: Dark = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Show where a model's attention goes: one head, all heads, or all layers together."""
    paths, load = check_outputs(output), load_arguments(revision, offline, threads, dtype)
    asked = {"layer": layer, "head": head, "attention": attention}
    it, _ = observed(text, model, asked, load, max_new_tokens=max_new_tokens)
    shown = it.head
    record: dict[str, Any] = {
        "model": it.model.name,
        "text": it.text,
        "rows": [token.label for token in it.strip(shown.rows)],
        "columns": [token.label for token in it.strip(shown.columns)],
        "address": shown.place,
        "head": shown.head,
        "chosen": shown.chosen,
        "matrix": shown.matrix.tolist(),
        "measures": {name: values.tolist() for name, values in shown.measures.items()},
        "certificate": vars(it.certificate) if it.certificate else None,
    }
    arrays: dict[str, Any] = {"pattern": shown.pattern, **shown.measures}
    if view is View.rollout:
        arrays["rollout"] = _rollout(shown)
        record["rollout"] = arrays["rollout"][-1].tolist()
    if not as_json:
        from cutaway.inspect import terminal

        terminal.show_attention(it, console(), measure=measure.value)

    def draw() -> Figure:
        return _draw(it, view, measure.value, arrays, dark)

    write_outputs(paths, record, arrays, draw, as_json, sheet=it.sheet(), dark=dark)


def _rollout(shown: Attention) -> object:
    """[layers, L, L]"""
    if shown.rows != shown.columns:
        raise InputError("A rollout follows one text through its layers: give --attention encoder or decoder.")
    import torch

    from cutaway.inspect.flow import attention_rollout

    return attention_rollout(torch.from_numpy(shown.pattern)).shares.numpy()


def _draw(it: Explanation, view: View, measure: str, arrays: dict[str, Any], dark: bool) -> Figure:
    from cutaway.inspect.measures import MEANING
    from cutaway.inspect.plots.generation import origin_of
    from cutaway.inspect.plots.grid import grid
    from cutaway.inspect.plots.lines import head_lines

    shown, origin = it.head, origin_of(it)
    rows = [token.label for token in it.strip(shown.rows)]
    columns = [token.label for token in it.strip(shown.columns)]
    kind = "" if shown.name == "self" else f"{shown.name} attention, "
    title = f"Where attention goes: {kind}layer {shown.layer}, head {shown.head}"
    between = ("from (query) ↓", "to (key) →")
    if view is View.lines:
        return head_lines(shown.matrix, rows, columns, title=title, origin=origin, dark=dark)
    if view is View.matrix:
        note = f"share of each row's attention; each row sums to 1; the head: {shown.chosen}"
        return grid(shown.matrix, rows, columns, title=title, note=note, origin=origin, axes=between, number=".0%",
                    caption=shown.place, dark=dark)  # fmt: skip
    if view is View.rollout:
        title = f"Attention rollout through {len(arrays['rollout'])} layers{kind and ', ' + shown.name}"
        note = "how much of each position came from each token, by attention alone, half of it the stream's own share"
        return grid(arrays["rollout"][-1], rows, columns, title=title, note=note, origin=origin, axes=between,
                    number=".0%", caption="Abnar and Zuidema, 2020", dark=dark)  # fmt: skip
    values = shown.measures[measure]
    layers, heads = ([str(i) for i in range(n)] for n in values.shape)
    mark = (shown.layer, shown.head) if shown.chosen == "asked for" else None
    return grid(values, layers, heads, title=f"All heads, by {measure}", note=MEANING[measure], origin=origin,
                axes=("layer ↓", "head →"), scale="measure", mark=mark, dark=dark)  # fmt: skip
