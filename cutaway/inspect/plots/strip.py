"""A text whose tokens are coloured by what they did to an answer, one strip for each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.errors import InputError
from cutaway.inspect.plots.canvas import BODY, MARGIN, SMALL, Canvas, Origin, drawable, ramp
from cutaway.inspect.plots.grid import ink_on
from cutaway.inspect.plots.theme import theme_of
from cutaway.show.label import clipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

WIDE = 520.0
LINE = 34.0


@dataclass(frozen=True)
class Strip:
    """One method's scores [L], what they should sum to, and how far they miss it (None: they promise no sum)."""

    method: str
    scores: NDArray[np.floating[Any]]
    residual: float | None
    note: str = ""

    @property
    def heading(self) -> str:
        scores = np.asarray(self.scores, dtype=np.float64)
        said = "promises no sum" if self.residual is None else f"residual {self.residual:.2%}"
        return f"{self.method}: sum {scores.sum():+.3g}, {said}{', ' + self.note if self.note else ''}"


def token_strips(
    tokens: Sequence[str], strips: Sequence[Strip], *, title: str, note: str, origin: Origin, dark: bool = False
) -> Figure:
    """Each token in a box of its score's colour (orange: for the answer, blue: against it), its score below.

    Each strip has its own scale, since methods differ in units. Raises InputError where scores and tokens differ.
    """
    names = [drawable(clipped(token, 22)) for token in tokens]
    for strip in strips:
        if np.shape(strip.scores) != (len(names),) or not names:
            raise InputError(f"{list(np.shape(strip.scores))} scores do not belong to {len(names)} tokens.")
    canvas = Canvas(theme_of(dark))
    theme = canvas.theme
    wide = [max(canvas.width_of(name, BODY) + 8, 31.0) for name in names]
    places, x, line = [], 0.0, 0
    for width in wide:
        if x and x + width > WIDE:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += width + 2
    tall = 22 + LINE * (line + 1)
    y = canvas.frame(title, (WIDE, tall * len(strips)), origin, note)
    colors = ramp(theme.signed, theme.paper)
    from matplotlib.patches import Rectangle

    for n, strip in enumerate(strips):
        scores = np.asarray(strip.scores, dtype=np.float64)
        most = float(np.abs(scores[np.isfinite(scores)]).max(initial=0.0)) or 1.0
        canvas.text(MARGIN, y + tall * n + 10, strip.heading, BODY, weight="bold")
        picture = canvas.plain_axes(MARGIN, y + tall * n + 20, WIDE, LINE * (line + 1))
        for name, width, (at, row), score in zip(names, wide, places, scores, strict=True):
            color = colors(float((score / most + 1) / 2))
            box = Rectangle((at, row * LINE), width, 17, facecolor=color, edgecolor=theme.track, linewidth=0.6)
            picture.add_patch(box)
            style = canvas.style(BODY, ink_on(color, theme.paper, theme.ink), ha="center", va="center")
            picture.text(at + width / 2, row * LINE + 8.5, name, **style)
            style = canvas.style(SMALL - 1, theme.muted, ha="center", va="center")
            picture.text(at + width / 2, row * LINE + 23, f"{score:+.2g}", **style)
    return canvas.figure
