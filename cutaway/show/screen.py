"""A terminal that texts, tables and coloured cells are drawn for, in colour where it has colour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from cutaway.show import palette
from cutaway.show.label import clipped, printable
from cutaway.show.sheet import Bars, Grid, Part, Sheet, Table, figure

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table as RichTable
    from rich.text import Text

SHADES = " ░▒▓█"
ASCII_SHADES = " .:*#"
LABEL = 16  # characters of a name
CELL = 8
ROWS = 48
BAR = 24


class Screen:
    """What one console can show, `width` characters wide."""

    def __init__(self, console: Console, width: int | None = None) -> None:
        self.console, self.width = console, width or console.width
        # rich calls 256 colours and more good enough for a ramp; `no_color` is the reader's wish (NO_COLOR)
        self.colour = console.color_system in ("256", "truecolor") and not console.no_color
        self.plain = console.encoding.lower().replace("-", "") not in ("utf8", "utf16", "utf32")
        self.shades = ASCII_SHADES if self.plain else SHADES
        self.full, self.empty = ("#", ".") if self.plain else ("█", "·")

    # -- a sheet --------------------------------------------------------------------------------------------------

    def drawn(self, sheet: Sheet) -> Iterator[RenderableType]:
        """The sheet from top to bottom."""
        yield self.text(printable(sheet.title), "bold")
        if sheet.note:
            yield self.text(printable(sheet.note), "dim")
        for part in sheet.parts:
            yield ""
            if part.title:
                yield self.text(printable(part.title), "bold blue")
            yield self._part(part)
            if part.note:
                yield self.text(printable(part.note), "dim")

    def _part(self, part: Part) -> RenderableType:
        if isinstance(part, Grid):
            return self._grid(part)
        if isinstance(part, Bars):
            return self._bars(part)
        return self._table(part)

    def _grid(self, grid: Grid) -> RenderableType:
        rows, columns = grid.values.shape
        names = [clipped(printable(name), LABEL) for name in grid.rows]
        side = max(map(len, names), default=0) + 1
        widest = max((len(grid.cell(i, j)) for i in range(min(rows, ROWS)) for j in range(min(columns, 40))), default=1)
        wide = min(max(widest, 2), CELL) + 1
        room = max((self.width - side) // wide, 1)
        table = self.table("", *(f"{clipped(printable(name), wide - 1)}>" for name in grid.columns[:room]), gap=0)
        for i in range(min(rows, ROWS)):
            cells = []
            for j in range(min(columns, room)):
                inside = clipped(printable(grid.cell(i, j)), wide - 1).rjust(wide - 1)
                look = ""
                if self.colour:
                    color = grid.color(float(grid.values[i, j]))
                    look = f"{palette.ink_on(color)} on #{color[0]:02x}{color[1]:02x}{color[2]:02x}"
                cells.append(self.text(f"{inside} ", look))
            table.add_row(self.text(f"{names[i]} "), *cells)
        if rows > ROWS or columns > room:
            table.caption = self.text(f"{min(rows, ROWS)} of {rows} rows, {min(columns, room)} of {columns} columns")
            table.caption_justify = "left"
        return table

    def _bars(self, bars: Bars) -> RenderableType:
        most = float(np.abs(bars.values[np.isfinite(bars.values)]).max(initial=0.0)) or 1.0
        table = self.table("", "", ">")
        for name, value in list(zip(bars.names, bars.values.tolist(), strict=True))[:ROWS]:
            share = abs(value) / most if np.isfinite(value) else 0.0
            color = "blue" if value < 0 or not (bars.values < 0).any() else "dark_orange3"
            table.add_row(self.text(clipped(printable(name), 2 * LABEL)), self.fill(share, BAR, color), figure(value))
        return table

    def _table(self, table: Table) -> RenderableType:
        found = self.table(*table.columns)
        for row in table.rows[:ROWS]:
            found.add_row(*(self.text(printable(cell)) for cell in row))
        return found

    # -- pieces ---------------------------------------------------------------------------------------------------

    def text(self, text: str, style: str = "") -> Text:
        """What this terminal's encoding can hold, and never markup: a token may hold [brackets]."""
        from rich.text import Text

        text = text.replace("·", "_").replace("…", ".") if self.plain else text
        return Text(text.encode(self.console.encoding, "replace").decode(self.console.encoding), style=style)

    def table(self, *columns: str, gap: int = 2) -> RichTable:
        """A table without a frame; a column whose name ends in > is set to the right."""
        from rich.table import Table as RichTable

        table = RichTable(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim", show_edge=False)
        for name in columns:
            right = name.endswith(">")
            table.add_column(
                self.text(name.removesuffix(">"), "dim"), justify="right" if right else "left", overflow="fold"
            )
        return table

    def fill(self, share: float, width: int, color: str = "blue") -> Text:
        """A bar of `width` characters, `share` of it full."""
        from rich.text import Text

        full = min(max(round(share * width), 0), width)
        return Text().append(self.full * full, style=color).append(self.empty * (width - full), style="dim")

    def cell(
        self, value: float, share: float, width: int, ramp: tuple[str, ...], number: str | None = None, style: str = ""
    ) -> Text:
        """One square of a map: a background colour, or a shade; with its number where there is room."""
        from rich.style import Style
        from rich.text import Text

        text = number if number is not None else f"{value * 100:.0f}" if width > 2 and value >= 0.005 else ""
        if not self.colour:
            if width > 2 and text:
                mark = "*" if style else ""
                return Text(f"{text}{mark}".rjust(width))
            shade = self.shades[min(int(share * len(self.shades)), len(self.shades) - 1)]
            return Text((shade * 2).rjust(width) if width > 1 else shade)
        color = palette.at(ramp, share)
        look = f"{style} {palette.ink_on(color)} on #{color[0]:02x}{color[1]:02x}{color[2]:02x}"
        return Text(text.rjust(width), style=Style.parse(look.strip()))
