"""One attention head as lines from the token that looks to the tokens that it looks at."""

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

FAINTEST = 0.02  # weights below this share of the row are not drawn
STEP = 15.0


def head_lines(
    matrix: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    origin: Origin,
    dark: bool = False,
) -> Figure:
    """Lines from each query (left) to its keys (right), as wide and as strong as the weight [queries, keys].

    Legible up to some 60 tokens; longer texts are better seen as a matrix. Raises InputError where names and numbers do
    not belong together.
    """
    pattern = np.asarray(matrix, dtype=np.float64)
    if pattern.shape != (len(rows), len(columns)) or not pattern.size:
        raise InputError(f"a pattern {list(pattern.shape)} does not belong to {len(rows)} x {len(columns)} tokens.")
    canvas = Canvas(theme_of(dark))
    theme = canvas.theme
    left = [drawable(clipped(name, 22)) for name in rows]
    right = [drawable(clipped(name, 22)) for name in columns]
    wide = max(canvas.widest(left, BODY), canvas.width_of("from (query)", SMALL)) + 8
    ends = max(canvas.widest(right, BODY), canvas.width_of("to (key)", SMALL)) + 8
    span, height = 230.0, STEP * max(len(left), len(right))
    note = f"each row's weights sum to 1; width and strength of a line: its weight; below {FAINTEST:.0%} none is drawn"
    y = canvas.frame(title, (wide + span + ends, height + 20), origin, note) + 16
    x = MARGIN + wide
    canvas.text(x - 8, y - 8, "from (query)", SMALL, theme.muted, ha="right")
    canvas.text(x + span + 8, y - 8, "to (key)", SMALL, theme.muted)
    picture = canvas.plain_axes(x, y, span, height)
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    shape = np.linspace(0, 1, 24)
    ease = shape * shape * (3 - 2 * shape)  # leaves and arrives level
    lines, looks, widths = [], [], []
    for i, j in sorted(np.argwhere(pattern >= FAINTEST).tolist(), key=lambda at: pattern[at[0], at[1]]):
        weight = min(float(pattern[i, j]), 1.0)
        start, end = (i + 0.5) * STEP, (j + 0.5) * STEP
        lines.append(np.stack([shape * span, start + (end - start) * ease], 1))
        looks.append((*to_rgb(theme.series[0]), 0.12 + 0.88 * weight))
        widths.append(0.5 + 3.2 * weight)
    picture.add_collection(LineCollection(lines, colors=looks, linewidths=widths, capstyle="round"))
    for i, name in enumerate(left):
        canvas.text(x - 8, y + (i + 0.5) * STEP, name, BODY, ha="right")
    for j, name in enumerate(right):
        canvas.text(x + span + 8, y + (j + 0.5) * STEP, name, BODY)
    return canvas.figure
