"""An explanation as one picture: the chosen head with its tokens, all heads, one measure of them, and the answers.

All lengths are points, y downward from the top (`cutaway.inspect.plots.canvas`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cutaway.inspect.explanation import Explanation
from cutaway.inspect.measures import Array
from cutaway.inspect.plots.canvas import BODY, MARGIN, SMALL, TITLE, Canvas, drawable, ramp, save_figure
from cutaway.inspect.plots.generation import origin_of
from cutaway.inspect.plots.theme import theme_of
from cutaway.show.label import clipped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MOST_BARS = 5

FROM, TO = "from (query) ↓", "to (key) →"
ALL_HEADS = "rows: layers, columns: heads; each scaled to its maximum"
ENTROPY = "mean over its rows; 0: every token looks at one token"


def save(explanation: Explanation, path: str | Path, *, dark: bool = False) -> None:
    """Write the picture as .png, .svg or .pdf. Raises InputError for another ending."""
    save_figure(draw(explanation, dark=dark), path)


def draw(explanation: Explanation, *, dark: bool = False) -> Figure:
    """The picture as a matplotlib Figure with its own Agg canvas."""
    sheet = _Sheet(explanation, dark)
    sheet.fill()
    return sheet.figure


class _Sheet(Canvas):
    def __init__(self, explanation: Explanation, dark: bool) -> None:
        super().__init__(theme_of(dark))
        self.it = explanation

    def fill(self) -> None:
        it, head = self.it, self.it.head
        rows = [drawable(clipped(t.label, 22)) for t in it.strip(head.rows)]
        columns = [drawable(clipped(t.label, 22)) for t in it.strip(head.columns)]
        layers, heads = head.pattern.shape[:2]
        bars = self._bars()

        # The map: cells from 9.5 points (where every label still fits) to 56; past 150 tokens they shrink further.
        longest = max(len(rows), len(columns))
        cell = float(np.clip(310 / longest, 9.5, 56)) if longest <= 150 else 1425 / longest
        size = min(BODY, cell * 0.82) if cell > 9.5 else SMALL
        row_space = max(*(self.width_of(text, size) for text in rows), self.width_of(FROM, SMALL)) + 8
        column_space = max(self.width_of(text, size) for text in columns) + 8
        map_width, map_height = cell * len(columns), cell * len(rows)
        left = MARGIN + row_space

        # The side: thumbnails over the measure, or next to it where the layers are many.
        tile = float(np.clip(min(222 / heads, 300 / layers), 8, 28))
        beside = layers > 16
        measure = tile if beside else min(tile, 13.0)
        grid = max(tile * heads + 18, *(self.width_of(text, SMALL) for text in (ALL_HEADS, ENTROPY)))
        side = grid * 2 + 24 if beside else max(grid, 222)
        right = left + max(map_width, 120) + 64  # past the colour bar
        self.width = max(right + side, MARGIN + 420) + MARGIN
        quote = self.wrapped(self._quote(), BODY + 1, 2)
        note = self.wrapped(self._provenance(), SMALL, 3)

        top = MARGIN + 46 + 14 * len(quote)
        map_top = top + 14 + column_space
        grids = tile * layers + 46 + (0 if beside else measure * layers + 86)
        side_height = grids + (34 + 17 * len(bars) if bars else 0)
        self.height = max(map_top + map_height, top + side_height) + 30 + 11 * len(note) + 12
        self.resize(self.width, self.height)

        kind = "" if head.name == "self" else f"{head.name} attention, "
        self.text(
            MARGIN,
            MARGIN + 12,
            f"Where attention goes: {kind}layer {head.layer}, head {head.head}",
            TITLE,
            weight="bold",
        )
        for i, line in enumerate(quote):
            self.text(MARGIN, MARGIN + 36 + 14 * i, line, BODY + 1, color=self.theme.muted)
        self._map(left, map_top, map_width, map_height, rows, columns, size, cell)
        y = self._heads(right, top, tile)
        at = (right + grid + 24, top) if beside else (right, y + 30)
        self._measure(at[0], at[1], tile, measure)
        if bars:
            self._answers(right, top + grids + 10, min(side, 300.0), bars)
        for i, line in enumerate(note):
            self.text(MARGIN, self.height - 20 - 11 * (len(note) - 1 - i), line, SMALL, color=self.theme.muted)

    # -- the parts ------------------------------------------------------------------------------------------------

    def _map(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        rows: list[str],
        columns: list[str],
        size: float,
        cell: float,
    ) -> None:
        matrix = self.it.head.matrix
        most = min(1.0, float(np.ceil(max(matrix.max(), 0.01) * 10) / 10))
        axes = self.axes(x, y, width, height)
        image = axes.imshow(
            matrix,
            cmap=self._colors(self.theme.share),
            vmin=0,
            vmax=most,
            aspect="auto",
            interpolation="nearest",
        )
        every = max(1, int(np.ceil(9.5 / cell)))
        style: dict[str, Any] = {
            "fontsize": size,
            "parse_math": False,
            "family": self.families,
            "color": self.theme.ink,
        }
        axes.set_xticks(range(0, len(columns), every), columns[::every], rotation=90, **style)
        axes.set_yticks(range(0, len(rows), every), rows[::every], **style)
        axes.tick_params(length=0, pad=4, labeltop=True, labelbottom=False)
        if cell >= 9.5:  # white lines between the cells, drawn by the minor grid
            axes.set_xticks(np.arange(0.5, len(columns) - 1), minor=True)
            axes.set_yticks(np.arange(0.5, len(rows) - 1), minor=True)
            axes.grid(which="minor", color=self.theme.paper, linewidth=min(1.2, cell / 16))
            axes.tick_params(which="minor", length=0)
        above = y - max(self.width_of(text, size) for text in columns) - 18
        self.text(x, above, TO, SMALL, color=self.theme.muted)
        self.text(x - 4, y - 8, FROM, SMALL, color=self.theme.muted, ha="right")

        tall = min(height, 200.0)
        bar = self.axes(x + width + 14, y, 8, tall)
        self.figure.colorbar(image, cax=bar)
        ticks = np.linspace(0, most, 3)
        bar.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks], fontsize=SMALL, color=self.theme.ink, parse_math=False)
        bar.tick_params(length=2, color=self.theme.muted, pad=2)
        bar.spines["outline"].set_visible(False)
        self.text(x + width + 14, y - 21, "share of", SMALL, color=self.theme.muted)
        self.text(x + width + 14, y - 12, "the row", SMALL, color=self.theme.muted)

    def _heads(self, x: float, y: float, tile: float) -> float:
        from matplotlib.patches import Rectangle

        head = self.it.head
        layers, heads = head.pattern.shape[:2]
        self.text(x, y, "All heads", BODY + 1, weight="bold")
        self.text(x, y + 13, ALL_HEADS, SMALL, color=self.theme.muted)
        axes = self.axes(x + 16, y + 36, tile * heads, tile * layers)
        mosaic, share = _mosaic(head.pattern, int(tile))
        axes.imshow(
            mosaic,
            cmap=self._colors(self.theme.share),
            vmin=0,
            vmax=1,
            aspect="auto",
            extent=(0, heads, layers, 0),
        )
        self._numbers(axes, layers, heads, tile)
        axes.add_patch(
            Rectangle(
                (head.head, head.layer), *share, fill=False, edgecolor=self.theme.accent, linewidth=1.8, clip_on=False
            )
        )
        return float(y + 36 + tile * layers)

    def _measure(self, x: float, y: float, width: float, height: float) -> None:
        head = self.it.head
        values = head.measures["entropy"]
        layers, heads = values.shape
        most = float(np.log2(max(head.pattern.shape[-1], 2)))
        self.text(x, y, "Entropy of each head", BODY + 1, weight="bold")
        self.text(x, y + 13, ENTROPY, SMALL, color=self.theme.muted)
        axes = self.axes(x + 16, y + 36, width * heads, height * layers)
        image = axes.imshow(
            values,
            cmap=self._colors(self.theme.measure),
            vmin=0,
            vmax=most,
            aspect="auto",
            extent=(0, heads, layers, 0),
        )
        axes.set_xticks(range(1, heads), minor=True)
        axes.set_yticks(range(1, layers), minor=True)
        axes.grid(which="minor", color=self.theme.paper, linewidth=1)
        axes.tick_params(which="minor", length=0)
        self._numbers(axes, layers, heads, min(width, height))
        bar = self.axes(x + 16, y + 36 + height * layers + 9, 90, 6)
        self.figure.colorbar(image, cax=bar, orientation="horizontal")
        bar.set_xticks([])
        bar.spines["outline"].set_visible(False)
        middle = y + 36 + height * layers + 12
        self.text(x + 11, middle, "0", SMALL, ha="right", color=self.theme.muted)
        self.text(x + 111, middle, f"{most:.1f} bits: uniform", SMALL, color=self.theme.muted)

    def _answers(self, x: float, y: float, width: float, bars: list[tuple[str, float, str]]) -> None:
        words = {"labels": "Answer", "mask": "At the mask"}
        if self.it.kind == "mask" and len(self.it.steps) > 1:
            words["mask"] = f"At {self.it.tokens[self.it.steps[0].position].label} of {len(self.it.steps)}"
        self.text(x, y, words.get(self.it.kind, "Next token"), BODY + 1, weight="bold")
        name_width = min(max(self.width_of(name, BODY) for name, _, _ in bars) + 10, width * 0.5)
        bar_width = width - name_width - 46
        axes = self.axes(x, y + 12, width, 17 * len(bars))
        axes.set_xlim(0, width)
        axes.set_ylim(len(bars), 0)
        axes.axis("off")
        for i, (name, share, number) in enumerate(bars):
            axes.barh(i + 0.5, bar_width, left=name_width, height=0.58, color=self.theme.track)
            axes.barh(i + 0.5, bar_width * share, left=name_width, height=0.58, color=self.theme.share[5])
            style: dict[str, Any] = {"fontsize": BODY, "va": "center", "family": self.families, "parse_math": False}
            axes.text(0, i + 0.5, name, color=self.theme.ink, **style)
            axes.text(width, i + 0.5, number, color=self.theme.ink, ha="right", **style)

    # -- what the parts share -------------------------------------------------------------------------------------

    def _bars(self) -> list[tuple[str, float, str]]:
        """Name, length (0 to 1) and number of each answer, the likeliest first."""
        answers = self.it.answers or (self.it.steps[0].candidates if self.it.steps else [])
        answers = sorted(answers, key=lambda answer: -answer.logit)[:MOST_BARS]
        if self.it.function == "none":
            most = max((abs(a.logit) for a in answers), default=1.0) or 1.0
            return [(drawable(clipped(a.label, 18)), abs(a.logit) / most, f"{a.logit:.3g}") for a in answers]
        return [(drawable(clipped(a.label, 18)), a.probability, f"{a.probability:.1%}") for a in answers]

    def _quote(self) -> str:
        text = f"“{drawable(self.it.text)}”"
        return f"{text} → “{drawable(self.it.generated)}”" if self.it.generated else text

    def _provenance(self) -> str:
        it, head = self.it, self.it.head
        place = f"{head.place}, head {head.head}, counted from 0 ({head.chosen}) · each row sums to 1"
        return origin_of(it).line(place)

    def _colors(self, colors: tuple[str, ...]) -> Colormap:
        return ramp(colors, self.theme.paper)

    def _numbers(self, axes: Axes, layers: int, heads: int, cell: float) -> None:
        every = max(1, int(np.ceil(9 / cell)))
        style: dict[str, Any] = {"fontsize": SMALL - 0.5, "color": self.theme.muted, "parse_math": False}
        axes.set_xticks([i + 0.5 for i in range(0, heads, every)], [str(i) for i in range(0, heads, every)], **style)
        axes.set_yticks([i + 0.5 for i in range(0, layers, every)], [str(i) for i in range(0, layers, every)], **style)
        axes.tick_params(length=0, pad=2, labeltop=True, labelbottom=False)


def _mosaic(pattern: Array, detail: int) -> tuple[Array, tuple[float, float]]:
    """All heads in one image, and the share of a step that a tile takes in width and height; the rest is the gap.

    pattern [layers, heads, Lq, Lk] -> [layers * (q + gap), heads * (k + gap)], the gaps NaN, each tile over its
    maximum; q and k are at most `detail`.
    """
    layers = pattern.shape[0]
    tiles = _pooled(pattern, detail)
    tiles = tiles / np.maximum(tiles.max((-2, -1), keepdims=True), 1e-9)
    rows, columns = tiles.shape[-2:]
    # a gap is an eighth of a tile: the image is drawn finer where a tile has too few cells for that
    fine = np.repeat(np.repeat(tiles, 8, axis=-2), 8, axis=-1)
    padded = np.pad(fine, ((0, 0), (0, 0), (0, rows), (0, columns)), constant_values=np.nan)
    image = padded.transpose(0, 2, 1, 3).reshape(layers * rows * 9, -1)  # [layers * row step, heads * column step]
    return image, (8 / 9, 8 / 9)


def _pooled(pattern: Array, detail: int) -> Array:
    """Tiles of at most `detail` cells a side; a cell keeps the maximum of what it stands for, so that lines survive."""
    for axis in (2, 3):
        step = -(-pattern.shape[axis] // detail)
        if step > 1:
            pattern = np.maximum.reduceat(pattern, np.arange(0, pattern.shape[axis], step), axis=axis)
    return pattern
