"""`cutaway attribute`: which tokens, or which parts of the model, made an answer."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.display import console, plain, table_of, write
from cutaway.commands.option import SENTIMENT, AsJson, Dtypes, ModelName, Offline, Revision, Threads, load_arguments
from cutaway.commands.subject import (
    Against,
    Dark,
    Outputs,
    Position,
    Subject,
    Text,
    Wanted,
    check_outputs,
    read_text,
    write_outputs,
)
from cutaway.show.label import clipped, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cutaway.inspect.target import Target

PARTS = 20


class Method(StrEnum):
    """How the answer is shared out: over tokens, or (direct) over the model's parts."""

    integrated = "integrated"
    gradient = "gradient"
    occlusion = "occlusion"
    shapley = "shapley"
    direct = "direct"


def attribute(
    text: Text = None,
    model: ModelName = SENTIMENT,
    method: Annotated[
        list[Method] | None,
        typer.Option(help="integrated (gradients), gradient (x input), occlusion, shapley; or direct. Repeatable."),
    ] = None,
    target: Wanted = None,
    against: Against = None,
    position: Position = None,
    output: Outputs = None,
    dark: Dark = False,
    as_json: AsJson = False,
    revision: Revision = None,
    offline: Offline = False,
    threads: Threads = None,
    dtype: Dtypes = None,
) -> None:
    """Show which tokens, or which parts of the model, made an answer."""
    paths, given = check_outputs(output), read_text(text)
    methods = method or [Method.integrated]
    if Method.direct in methods and len(methods) > 1:
        raise typer.BadParameter("--method direct shares an answer over the model's parts; give it alone.")
    subject = Subject.load(model, load_arguments(revision, offline, threads, dtype))
    inputs = subject.inputs(given)
    goal = subject.target(inputs, target, against, position)
    if methods == [Method.direct]:
        _direct(subject, given, inputs, goal, paths, dark, as_json)
    else:
        _tokens(subject, given, inputs, goal, methods, paths, dark, as_json)


def _why(subject: Subject, index: int | None, against: int | None) -> str:
    """The answer, in quotes, against another one where that is asked."""
    first = f"“{printable(subject.answer(index or 0))}”"
    return first if against is None else f"{first} and not “{printable(subject.answer(against))}”"


def _tokens(
    subject: Subject,
    text: str,
    inputs: dict[str, Any],
    goal: Target,
    methods: list[Method],
    paths: list[Path],
    dark: bool,
    as_json: bool,
) -> None:
    from cutaway.inspect.gradients import input_x_gradient, integrated_gradients
    from cutaway.inspect.occlusion import occlude
    from cutaway.inspect.picture_strip import Strip
    from cutaway.inspect.shapley import shapley_values
    from cutaway.show.sheet import Bars, Sheet

    run: dict[Method, Any] = {
        Method.integrated: integrated_gradients,
        Method.gradient: input_x_gradient,
        Method.occlusion: occlude,
        Method.shapley: shapley_values,
    }
    found = [run[name](subject.model, inputs, goal) for name in methods]
    names = subject.labels(inputs["input_ids"][0].tolist())
    fixed = found[0].target
    why = _why(subject, fixed.index, fixed.against)
    strips = [Strip(f.method, f.scores.detach().float().cpu().numpy(), f.residual, f.note) for f in found]
    record = {"model": subject.name, "text": text, "answer": subject.answer(fixed.index), "tokens": names,
              "attributions": [f.to_dict() for f in found]}  # fmt: skip
    if not as_json:
        write(f"Why {why}: the logit is {found[0].value:.4f}, and {found[0].base:.4f} without the tokens")
        table = table_of("#>", "token", *(f"{strip.method}>" for strip in strips), "")
        most = max(float(abs(strips[0].scores).max()), 1e-12)
        for i, name in enumerate(names):
            share = float(strips[0].scores[i]) / most
            bar = plain("█" * round(abs(share) * 20), "dark_orange3" if share > 0 else "blue")
            numbers = (f"{strip.scores[i]:+.4f}" for strip in strips)
            table.add_row(str(i), plain(clipped(name, 24)), *numbers, bar)
        console().print(table)
        for strip in strips:
            write(strip.heading)

    def draw() -> Figure:
        from cutaway.inspect.picture_strip import token_strips

        note = (
            f"orange: for the answer, blue: against it; logit {found[0].value:.4g}; each strip has its own scale; "
            "residual: how far the sum misses the change from a text of stand-ins"
        )
        return token_strips(names, strips, title=f"Why {why}", note=note, origin=subject.origin(text), dark=dark)

    arrays = {strip.method.replace(" ", "_"): strip.scores for strip in strips}
    sheet = Sheet(f"Why {why}", subject.told(text))
    sheet.parts.extend(Bars(strip.method, names, strip.scores, strip.heading) for strip in strips)
    write_outputs(paths, record, arrays, draw, as_json, sheet=sheet, dark=dark)


def _direct(
    subject: Subject, text: str, inputs: dict[str, Any], goal: Target, paths: list[Path], dark: bool, as_json: bool
) -> None:
    from cutaway.inspect.direct import direct_logit_attribution
    from cutaway.inspect.picture_waterfall import folded, waterfall

    found = direct_logit_attribution(subject.model, inputs, goal)
    values = found.values.float().cpu().numpy()
    why = _why(subject, found.index, found.against)
    record = {"model": subject.name, "text": text, "answer": subject.answer(found.index), **found.to_dict()}
    if not as_json:
        write(f"Why {why}: {len(values)} parts sum to {found.total:.6g}; the model said {found.logit:.6g}")
        table = table_of("part", "adds>", "so far>")
        total = 0.0
        for name, value in zip(*folded(found.names, values, PARTS), strict=True):
            total += value
            table.add_row(name, f"{value:+.4f}", f"{total:.4f}")
        console().print(table)

    def draw() -> Figure:
        title = f"Which parts of the model wrote {why}"
        return waterfall(found.names, values, found.logit, title=title, origin=subject.origin(text), dark=dark)

    sheet = found.sheet()
    sheet = replace(sheet, title=f"Why {why}", note=f"{sheet.note} · {subject.told(text)}")
    write_outputs(paths, record, {"values": values}, draw, as_json, sheet=sheet, dark=dark)
