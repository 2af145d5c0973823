"""What a result shows, before it is known where: a title and grids, bars and tables of texts and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cutaway.show import palette

Scale = Literal["share", "measure", "signed"]
ABOVE, BELOW = palette.MEASURE, palette.ATTENTION  # orange for what is above 0, blue for what is below


@dataclass(frozen=True)
class Grid:
    """A matrix of coloured cells. `texts`: what stands in the cells in place of their numbers.

    `scale`: "share" and "measure" colour from the least to the largest number, "signed" away from 0 both ways.
    """

    title: str
    values: NDArray[Any]
    rows: Sequence[str]
    columns: Sequence[str]
    scale: Scale = "measure"
    texts: Sequence[Sequence[str]] | None = None
    note: str = ""

    @cached_property
    def _limits(self) -> tuple[float, float]:
        finite = self.values[np.isfinite(self.values)]
        return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)

    def color(self, value: float) -> tuple[int, int, int]:
        """The colour of a number of this grid; white for one that is not finite."""
        low, high = self._limits
        if not np.isfinite(value):
            return palette.rgb(palette.PAPER)
        if self.scale == "signed":
            most = max(abs(low), abs(high)) or 1.0
            return palette.at(ABOVE if value > 0 else BELOW, 0.75 * abs(value) / most)
        if self.scale == "share":
            return palette.at(palette.ATTENTION, value / (high or 1.0))
        return palette.at(palette.MEASURE, (value - low) / (high - low or 1.0))

    def cell(self, row: int, column: int) -> str:
        """What stands in a cell."""
        return figure(float(self.values[row, column])) if self.texts is None else self.texts[row][column]


@dataclass(frozen=True)
class Bars:
    """One bar a name, as long as its number; to the left, in another colour, for what is below 0."""

    title: str
    names: Sequence[str]
    values: NDArray[Any]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of texts; a column whose name ends in > holds numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


Part = Grid | Bars | Table


@dataclass(frozen=True)
class Sheet:
    """A title, a line about it, and the parts in order."""

    title: str
    note: str = ""
    parts: list[Part] = field(default_factory=list)


def figure(value: float) -> str:
    """A number in at most three digits that count."""
    return f"{value:.3g}" if np.isfinite(value) else "not a number"
