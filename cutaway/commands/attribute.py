"""`cutaway attribute`: which tokens, or which parts of the model, made an answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutaway.commands.display import console, plain, table_of, write
from cutaway.commands.kept_run import KeptRun, no_options
from cutaway.commands.option import SENTIMENT, AsJson, Dtypes, ModelName, Offline, Revision, Threads, load_arguments
from cutaway.commands.subject import (
    Against,
    Dark,
    Outputs,
    Position,
    Subject,
    TextOrTrace,
    Wanted,
    check_outputs,
    read_text,
    told,
    write_outputs,
)
from cutaway.show.label import clipped, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cutaway.inspect.attribution import Attribution
    from cutaway.inspect.logit_attribution import Contributions
    from cutaway.inspect.plots.canvas import Origin
    from cutaway.inspect.target import Target

PARTS = 20


class Method(StrEnum):
    """How the answer is shared out: over tokens, or (direct) over the model's parts."""

    integrated = "integrated"
    gradient = "gradient"
    occlusion = "occlusion"
    shapley = "shapley"
    direct = "direct"


METHODS = {
    Method.integrated: "integrated gradients",
    Method.gradient: "input x gradient",
    Method.occlusion: "occlusion",
    Method.shapley: "Shapley",
}  # as the measures call themselves


def attribute(
    text: TextOrTrace = None,
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
    paths, kept = check_outputs(output), KeptRun.of(text)
    methods = method or [Method.integrated]
    if Method.direct in methods and len(methods) > 1:
        raise typer.BadParameter("--method direct shares an answer over the model's parts; give it alone.")
    if kept is not None:
        no_options(kept, target=target, against=against, position=position)
        answer = _Answer(kept.name, kept.origin(kept.it.text), kept.evidence("attribution").answer)
        if methods == [Method.direct]:
            _direct(answer, _kept_parts(kept), paths, dark, as_json)
        else:
            scores = _kept_scores(kept, methods)
            names = kept.labels("tokens")[: len(scores[0].scores)]  # without what a decoder wrote
            _tokens(answer, names, scores, paths, dark, as_json)
        return
    given = read_text(text)
    subject = Subject.load(model, load_arguments(revision, offline, threads, dtype))
    inputs = subject.inputs(given)
    goal = subject.target(inputs, target, against, position)
    goal = goal.fixed(subject.model, inputs)
    other = None if goal.against is None else subject.answer(goal.against)
    answer = _Answer(subject.name, subject.origin(given), subject.answer(goal.index or 0), other)
    if methods == [Method.direct]:
        _direct(answer, _parts(subject, inputs, goal), paths, dark, as_json)
    else:
        names = subject.labels(inputs["input_ids"][0].tolist())
        _tokens(answer, names, _scores(subject, inputs, goal, methods), paths, dark, as_json)


@dataclass(frozen=True)
class _Answer:
    """What is explained: one answer, perhaps against another."""

    model: str
    origin: Origin
    answer: str
    other: str | None = None

    @property
    def why(self) -> str:
        """The answer, in quotes, against another one where that is asked."""
        first = f"“{printable(self.answer)}”"
        return first if self.other is None else f"{first} and not “{printable(self.other)}”"


def _scores(subject: Subject, inputs: dict[str, Any], goal: Target, methods: list[Method]) -> list[Attribution]:
    from cutaway.inspect.gradients import input_x_gradient, integrated_gradients
    from cutaway.inspect.perturbation import occlude, shapley_values

    run: dict[Method, Any] = {
        Method.integrated: integrated_gradients,
        Method.gradient: input_x_gradient,
        Method.occlusion: occlude,
        Method.shapley: shapley_values,
    }
    return [run[name](subject.model, inputs, goal) for name in methods]


def _kept_target(run: KeptRun) -> Target:
    """What a trace explains: its likeliest answer, where the model answered first."""
    from cutaway.inspect.target import Target

    it = run.it
    if it.kind == "mask" and it.steps:
        return Target(it.steps[0].picked.id, position=it.steps[0].position)
    given = sum(not token.generated for token in it.tokens)
    position = {"labels": None, "target": 0, "token-labels": it.token}.get(it.kind, given - 1)
    return Target(None if it.best is None else it.best.id, position=position)


def _kept_scores(run: KeptRun, methods: list[Method]) -> list[Attribution]:
    """Those of the trace's attributions that are asked for."""
    import torch

    from cutaway.inspect.attribution import Attribution

    evidence, target = run.evidence("attribution"), _kept_target(run)
    known = {
        s.method: Attribution(
            s.method, torch.from_numpy(s.scores), target, s.value, s.base, s.residual, s.steps, s.note
        )
        for s in evidence.attributions
    }
    for method in methods:
        if METHODS[method] not in known:
            why = evidence.missing.get("attribution") or evidence.missing.get(method.value)
            raise run.lacks(METHODS[method], why or f"it has {', '.join(known)}")
    return [known[METHODS[method]] for method in methods]


def _tokens(
    answer: _Answer, names: list[str], found: list[Attribution], paths: list[Path], dark: bool, as_json: bool
) -> None:
    from cutaway.inspect.plots.strip import Strip
    from cutaway.show.sheet import Bars, Sheet

    why = answer.why
    strips = [Strip(f.method, f.scores.detach().float().cpu().numpy(), f.residual, f.note) for f in found]
    record = {"model": answer.model, "text": answer.origin.text, "answer": answer.answer, "tokens": names,
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
        from cutaway.inspect.plots.strip import token_strips

        note = (
            f"orange: for the answer, blue: against it; logit {found[0].value:.4g}; each strip has its own scale; "
            "residual: how far the sum misses the change from a text of stand-ins"
        )
        return token_strips(names, strips, title=f"Why {why}", note=note, origin=answer.origin, dark=dark)

    arrays = {strip.method.replace(" ", "_"): strip.scores for strip in strips}
    sheet = Sheet(f"Why {why}", told(answer.origin))
    sheet.parts.extend(Bars(strip.method, names, strip.scores, strip.heading) for strip in strips)
    write_outputs(paths, record, arrays, draw, as_json, sheet=sheet, dark=dark)


def _parts(subject: Subject, inputs: dict[str, Any], goal: Target) -> Contributions:
    from cutaway.inspect.logit_attribution import direct_logit_attribution

    return direct_logit_attribution(subject.model, inputs, goal)


def _kept_parts(run: KeptRun) -> Contributions:
    import torch

    from cutaway.inspect.logit_attribution import Contributions

    evidence, target = run.evidence("parts of a logit"), _kept_target(run)
    parts = evidence.parts
    if parts is None:
        raise run.lacks("parts of a logit", evidence.missing.get("parts", ""))
    values = torch.from_numpy(parts.values)
    return Contributions(parts.names, values, parts.total, parts.logit, target.index or 0, None, target.position or 0)


def _direct(answer: _Answer, found: Contributions, paths: list[Path], dark: bool, as_json: bool) -> None:
    from cutaway.inspect.plots.waterfall import folded, waterfall

    values, why = found.values.float().cpu().numpy(), answer.why
    record = {"model": answer.model, "text": answer.origin.text, "answer": answer.answer, **found.to_dict()}
    if not as_json:
        write(f"Why {why}: {found.note}")
        table = table_of("part", "adds>", "so far>")
        total = 0.0
        for name, value in zip(*folded(found.names, values, PARTS), strict=True):
            total += value
            table.add_row(name, f"{value:+.4f}", f"{total:.4f}")
        console().print(table)

    def draw() -> Figure:
        title = f"Which parts of the model wrote {why}"
        return waterfall(found.names, values, found.logit, title=title, origin=answer.origin, dark=dark)

    sheet = found.sheet()
    sheet = replace(sheet, title=f"Why {why}", note=f"{sheet.note} · {told(answer.origin)}")
    write_outputs(paths, record, {"values": values}, draw, as_json, sheet=sheet, dark=dark)
