"""A sheet as HTML that needs nothing: no script, no style sheet, no link. Every text is escaped and fully visible."""

from __future__ import annotations

from html import escape

import numpy as np

from cutaway.show import palette
from cutaway.show.label import printable
from cutaway.show.sheet import ABOVE, BELOW, Bars, Grid, Part, Sheet, Table, figure

MOST = 80  # rows and columns of one part
CELL = "padding:2px 6px;text-align:center;white-space:nowrap;"
TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
HEAD = "padding:2px 6px;font-weight:500;white-space:nowrap;"


def rendered(sheet: Sheet) -> str:
    """The sheet as one element."""
    parts = "".join(f'<section style="margin-top:10px">{_part(part)}</section>' for part in sheet.parts)
    note = f"<div><small>{text(sheet.note)}</small></div>" if sheet.note else ""
    return f'<div class="cutaway" style="overflow-x:auto"><strong>{text(sheet.title)}</strong>{note}{parts}</div>'


def text(value: str) -> str:
    """A text as data: nothing in it is markup, and it cannot turn the direction of what stands beside it."""
    return f"<bdi>{escape(printable(value))}</bdi>"


def _part(part: Part) -> str:
    if isinstance(part, Grid):
        table, cut = _grid(part)
    elif isinstance(part, Bars):
        table, cut = _bars(part)
    else:
        table, cut = _table(part)
    title = f"<div><strong>{text(part.title)}</strong></div>" if part.title else ""
    note = "; ".join(line for line in (part.note, cut) if line)
    return f"{title}{table}" + (f"<div><small>{text(note)}</small></div>" if note else "")


def _cut(*sizes: int) -> str:
    over = [str(size) for size in sizes if size > MOST]
    return f"the first {MOST} of {' and '.join(over)} are shown" if over else ""


def _rows(head: str, body: list[str]) -> str:
    lines = "".join(f"<tr>{line}</tr>" for line in body)
    start = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<table style="{TABLE}">{start}<tbody>{lines}</tbody></table>'


def _grid(grid: Grid) -> tuple[str, str]:
    rows, columns = grid.values.shape
    head = "<td></td>" + "".join(f'<th scope="col" style="{HEAD}">{text(name)}</th>' for name in grid.columns[:MOST])
    body = []
    for i in range(min(rows, MOST)):
        line = f'<th scope="row" style="{HEAD}text-align:right">{text(grid.rows[i])}</th>'
        for j in range(min(columns, MOST)):
            color = grid.color(float(grid.values[i, j]))
            look = f"background:#{color[0]:02x}{color[1]:02x}{color[2]:02x};color:{palette.ink_on(color)}"
            line += f'<td style="{CELL}{look}">{text(grid.cell(i, j))}</td>'
        body.append(line)
    return _rows(head, body), _cut(rows, columns)


def _bars(bars: Bars) -> tuple[str, str]:
    most = float(np.abs(bars.values[np.isfinite(bars.values)]).max(initial=0.0)) or 1.0
    both = bool((bars.values < 0).any())
    body = []
    for name, value in list(zip(bars.names, bars.values.tolist(), strict=True))[:MOST]:
        share = min(abs(value) / most, 1.0) * (50 if both else 100) if np.isfinite(value) else 0.0
        left = (50 - share if value < 0 else 50) if both else 0
        color = (BELOW if value < 0 or not both else ABOVE)[4]
        bar = (
            f'<div style="width:200px;background:#eef2f7"><div style="height:12px;margin-left:{left:.1f}%;'
            f'width:{share:.1f}%;background:{color}"></div></div>'
        )
        body.append(
            f'<th scope="row" style="{HEAD}text-align:left">{text(name)}</th><td>{bar}</td>'
            f'<td style="{CELL}text-align:right">{figure(value)}</td>'
        )
    return _rows("", body), _cut(len(bars.names))


def _table(table: Table) -> tuple[str, str]:
    sides = ["right" if name.endswith(">") else "left" for name in table.columns]
    head = "".join(
        f'<th scope="col" style="{HEAD}text-align:{side}">{text(name.rstrip(">"))}</th>'
        for name, side in zip(table.columns, sides, strict=True)
    )
    body = []
    for row in table.rows[:MOST]:
        cells = zip(row, sides, strict=True)
        body.append("".join(f'<td style="padding:2px 6px;text-align:{side}">{text(cell)}</td>' for cell, side in cells))
    return _rows(head, body), _cut(len(table.rows))
