"""What a model wrote: each token with its probability and what it could have been instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.errors import InputError
from cutaway.inspect.explanation import Explanation
from cutaway.inspect.plots.canvas import BODY, MARGIN, SMALL, Canvas, Origin, drawable
from cutaway.inspect.plots.theme import theme_of
from cutaway.show.label import clipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP = 19.0


def origin_of(explanation: Explanation) -> Origin:
    """The provenance of a picture that is drawn from an explanation."""
    certificate = explanation.certificate
    name = f"{explanation.model.name} ({explanation.model.family}, {explanation.model.dtype})"
    return Origin(name, explanation.text, certificate.error if certificate else None, explanation.version)


def generation(explanation: Explanation, *, alternatives: int = 3, dark: bool = False) -> Figure:
    """One row a step: the token that was taken, a bar as long as its probability, then the likeliest others.

    Raises InputError for an explanation in which nothing was written or filled in.
    """
    steps = explanation.steps
    if not steps:
        raise InputError("nothing was written in this run: take a decoder, or a text with a mask token.")
    canvas = Canvas(theme_of(dark))
    theme = canvas.theme
    picked = [drawable(clipped(step.picked.label, 22)) for step in steps]
    others = [
        [c for c in step.candidates if c.id != step.picked.id][:alternatives]
        for step in steps
    ]  # fmt: skip
    said = [[f"{drawable(clipped(c.label, 16))}  {c.probability:.0%}" for c in line] for line in others]
    name = canvas.widest(picked, BODY) + 12
    number, bar = canvas.width_of("100.0%", BODY) + 10, 120.0
    rest = canvas.widest([text for line in said for text in line], BODY) + 16
    verb = "filled in" if explanation.kind == "mask" else "wrote, the likeliest token each time"
    note = "bar and number: the token's probability where it stood (softmax of the logits); right: the next likeliest"
    wide = 20 + name + bar + number + 12 + rest * alternatives
    y = canvas.frame(f"What the model {verb}", (wide, STEP * len(steps) + 18), origin_of(explanation), note)
    x = MARGIN + 20 + name
    canvas.text(x + bar + number + 12, y + 4, "instead of", SMALL, theme.muted)
    picture = canvas.plain_axes(x, y + 12, bar, STEP * len(steps))
    for i, step in enumerate(steps):
        at = y + 12 + STEP * (i + 0.5)
        picture.barh(STEP * (i + 0.5), bar, height=10, color=theme.track)
        picture.barh(STEP * (i + 0.5), bar * step.picked.probability, height=10, color=theme.series[0])
        canvas.text(MARGIN, at, str(step.position), SMALL, theme.muted)
        canvas.text(x - 8, at, picked[i], BODY, ha="right", weight="bold")
        canvas.text(x + bar + number - 2, at, f"{step.picked.probability:.1%}", BODY, ha="right")
        for j, text in enumerate(said[i]):
            canvas.text(x + bar + number + 12 + rest * j, at, text, BODY, theme.muted)
    return canvas.figure
