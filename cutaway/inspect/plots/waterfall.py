"""What each part of a model adds to a logit, as steps that end at the logit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cutaway.errors import InputError
from cutaway.inspect.plots.canvas import BODY, MARGIN, SMALL, Canvas, Origin, drawable
from cutaway.inspect.plots.theme import theme_of
from cutaway.show.label import clipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

STEP = 16.0


def folded(names: Sequence[str], values: ArrayLike, most: int) -> tuple[list[str], list[float]]:
    """The `most` largest parts in the model's order, and all the others as one; the sum stays."""
    found = np.asarray(values, dtype=np.float64)
    if len(found) <= most:
        return list(names), found.tolist()
    kept = np.sort(np.argsort(-np.abs(found), kind="stable")[:most])
    rest = np.setdiff1d(np.arange(len(found)), kept)
    shown = [names[i] for i in kept] + [f"the {len(rest)} other parts together"]
    return shown, [*found[kept].tolist(), float(found[rest].sum())]


def waterfall(
    names: Sequence[str],
    values: ArrayLike,
    total: float,
    *,
    title: str,
    origin: Origin,
    end: str = "logit",
    most: int = 18,
    dark: bool = False,
) -> Figure:
    """Bars that begin where the one before ended, from 0 to `total`, which the model gave; the difference is shown.

    Args:
        names, values: the parts, in the model's order; all but the `most` largest are one bar. end: the total's name.
    """
    if len(names) != np.size(values) or not len(names):
        raise InputError(f"{np.size(values)} values do not belong to {len(names)} names.")
    labels, steps = folded(names, values, most)
    canvas = Canvas(theme_of(dark))
    theme = canvas.theme
    labels = [*(drawable(clipped(label, 40)) for label in labels), drawable(clipped(end, 40))]
    ends = np.cumsum(steps)
    starts = np.concatenate([[0.0], ends[:-1]])
    left, span, right = canvas.widest(labels, BODY) + 12, 300.0, 48.0
    high = STEP * len(labels)
    note = (
        f"bars in the model's order, each from the sum so far; {np.size(values)} parts sum to {float(ends[-1]):.6g}, "
        f"the model's own number is {total:.6g} (apart by {abs(float(ends[-1]) - total):.1g})"
    )
    y = canvas.frame(title, (left + span + right, high + 22), origin, note)
    x = MARGIN + left
    low, top = float(min(starts.min(), ends.min(), total, 0)), float(max(starts.max(), ends.max(), total, 0))
    data_range = (top - low) or 1.0
    picture = canvas.axes(x, y, span + right, high)
    picture.set_xlim(low, low + data_range * (span + right) / span)
    picture.set_ylim(len(labels), 0)
    picture.set_yticks([])
    ticks = [tick for tick in picture.get_xticks() if low <= tick <= top]
    picture.set_xticks(ticks, [f"{tick:g}" for tick in ticks], **canvas.style(SMALL, theme.muted))
    picture.tick_params(length=0)
    picture.axvline(0, color=theme.muted, linewidth=0.8)
    gap = data_range * 5 / span
    for i, (start, step) in enumerate(zip(starts, steps, strict=True)):
        color = theme.series[1] if step > 0 else theme.series[0]
        picture.barh(i + 0.5, step, left=start, height=0.68, color=color)
        picture.plot([start + step] * 2, [i + 0.5, i + 1.5], color=theme.muted, linewidth=0.6)
        number = f"{step:+.3g}"
        behind = {"facecolor": theme.paper, "edgecolor": "none", "pad": 0.6}  # the line at 0 does not cross a number
        picture.text(max(start, start + step) + gap, i + 0.5, number, va="center", bbox=behind, **canvas.style(SMALL))
    picture.barh(len(steps) + 0.5, total, height=0.68, color=theme.muted)
    look = canvas.style(BODY, weight="bold", va="center")
    picture.text(max(total, 0) + gap, len(steps) + 0.5, f"{total:.4g}", **look)
    for i, label in enumerate(labels):
        weight = "bold" if i == len(steps) else "normal"
        canvas.text(x - 10, y + STEP * (i + 0.5), label, BODY, ha="right", weight=weight)
    return canvas.figure
