"""Numbers as a grid of coloured cells with named rows and columns: a head, a rollout, an atlas of heads, a lens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from cutaway.errors import InputError
from cutaway.inspect.plots.canvas import BODY, MARGIN, SMALL, Canvas, Origin, drawable, ramp
from cutaway.inspect.plots.theme import theme_of
from cutaway.show.label import clipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType
    from numpy.typing import ArrayLike, NDArray

Scale = Literal["share", "measure", "signed"]
LABEL = 22  # characters of a row's or column's name
CELL_TEXT = 12  # characters of a text in a cell


def grid(
    values: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    note: str,
    origin: Origin,
    axes: tuple[str, str] = ("", ""),
    texts: Sequence[Sequence[str]] | None = None,
    scale: Scale = "share",
    limits: tuple[float, float] | None = None,
    number: str = ".2g",
    mark: tuple[int, int] | None = None,
    caption: str = "",
    dark: bool = False,
) -> Figure:
    """A grid [rows, columns].

    Args:
        rows, columns: their names, from the top and from the left. axes: what rows and what columns are.
        texts: what stands in each cell; without it, only colour. note: what the numbers are.
        scale: "share" and "measure" run from the paper's colour to the strongest one; "signed" is 0 in its middle.
        limits: the numbers at the scale's ends; from the values unless given. number: format of the scale's numbers.
        mark: (row, column) to put a frame around.

    Raises:
        InputError: names or texts that do not belong to the values.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.shape != (len(rows), len(columns)) or not table.size:
        raise InputError(f"values {list(table.shape)} do not belong to {len(rows)} rows and {len(columns)} columns.")
    canvas = Canvas(theme_of(dark))
    theme = canvas.theme
    names = [drawable(clipped(name, LABEL)) for name in rows]
    heads = [drawable(clipped(name, LABEL)) for name in columns]
    inside = [[drawable(clipped(text, CELL_TEXT)) for text in line] for line in texts or []]

    longest = max(len(rows), len(columns))
    if inside:
        wide, high = max(canvas.widest([t for line in inside for t in line], SMALL) + 8, 30.0), 18.0
    else:
        wide = high = float(np.clip(330 / longest, 9.5, 40)) if longest <= 150 else 1425 / longest
    size = min(BODY, high * 0.82) if high > 9.5 else SMALL
    flat = canvas.widest(heads, size) <= wide - 4  # names that fit above their columns need not be turned
    left = max(canvas.widest(names, size), canvas.width_of(axes[0], SMALL)) + 10
    above = (size + 6 if flat else canvas.widest(heads, size) + 8) + 12
    width, height = wide * len(columns), high * len(rows)
    tall = max(min(height, 150.0), 60.0)
    low, top = limits or _limits(table, scale)
    ticks = {v: f"{v:{number}}" for v in (low, (low + top) / 2, top)}
    body = (left + max(width, canvas.width_of(axes[1], SMALL)) + 22 + canvas.widest(list(ticks.values()), SMALL) + 8,
            above + max(height, tall) + 4)  # fmt: skip
    y = canvas.frame(title, body, origin, note, caption) + above
    x = MARGIN + left

    picture = canvas.axes(x, y, width, height)
    image = picture.imshow(
        table,
        cmap=ramp(getattr(theme, scale), theme.paper),
        vmin=low,
        vmax=top,
        aspect="auto",
        interpolation="nearest",
    )
    step = (max(1, int(np.ceil(9.5 / high))), max(1, int(np.ceil(9.5 / wide))))
    style = canvas.style(size)
    picture.set_xticks(range(0, len(heads), step[1]), heads[:: step[1]], rotation=0 if flat else 90, **style)
    picture.set_yticks(range(0, len(names), step[0]), names[:: step[0]], **style)
    picture.tick_params(length=0, pad=4, labeltop=True, labelbottom=False)
    if min(high, wide) >= 9.5:  # lines in the paper's colour between the cells
        picture.set_xticks(np.arange(0.5, len(heads) - 1), minor=True)
        picture.set_yticks(np.arange(0.5, len(names) - 1), minor=True)
        picture.grid(which="minor", color=theme.paper, linewidth=min(1.2, high / 14))
        picture.tick_params(which="minor", length=0)
    for i, line in enumerate(inside):
        for j, text in enumerate(line):
            ink = ink_on(tuple(image.cmap(image.norm(table[i, j]))), theme.paper, theme.ink)
            picture.text(j, i, text, ha="center", va="center", **canvas.style(SMALL, ink))
    if mark is not None:
        from matplotlib.patches import Rectangle

        at = (mark[1] - 0.5, mark[0] - 0.5)
        picture.add_patch(Rectangle(at, 1, 1, fill=False, edgecolor=theme.accent, linewidth=1.8, clip_on=False))
    canvas.text(x, y - above + 2, axes[1], SMALL, theme.muted)
    canvas.text(x - 6, y - 8, axes[0], SMALL, theme.muted, ha="right")
    canvas.bar(image, x + width + 14, y, ticks, tall)
    return canvas.figure


def _limits(values: NDArray[np.float64], scale: Scale) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    most = float(np.abs(known).max()) if known.size else 0.0
    most = most or 1.0
    return (-most, most) if scale == "signed" else (min(0.0, float(known.min(initial=0.0))), most)


def ink_on(cell: tuple[float, ...], paper: str, ink: str) -> str:
    """Of the paper's and the ink's colour, the one that stands out more on this cell (WCAG's contrast)."""
    from matplotlib.colors import to_rgb

    def light(color: ColorType) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))

    own = light((cell[0], cell[1], cell[2]))
    return max((paper, ink), key=lambda c: (max(light(c), own) + 0.05) / (min(light(c), own) + 0.05))
