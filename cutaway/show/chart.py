"""Charts as SVG inside a page: colours are the page's own, so they are light, dark and on paper as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from cutaway.show.label import printable

SERIES = 6  # colours of the page for lines and groups
WIDTH, HEIGHT, LEFT, BELOW, ABOVE, RIGHT = 460, 320, 52, 40, 12, 24
Point = tuple[float, float]


def written(text: str) -> str:
    """A text as data."""
    return escape(printable(text))


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two ends."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 10) for i in range(int((high - first * step) / step + 1e-9) + 1)]


class Axes:
    """A frame with two axes; what is drawn is clipped to it by the numbers themselves.

    shares: both axes are percentages. counts: the lower one counts, and has whole numbers only.
    """

    def __init__(
        self, x: Point, y: Point, x_name: str, y_name: str, alt: str, *, shares: bool = False, counts: bool = False
    ) -> None:
        self.x, self.y, self.alt = x, y, alt
        self.parts: list[str] = []
        form = ".0%" if shares else "g"
        for value in ticks(*x):
            if counts and value != round(value):
                continue
            at = self.at((value, y[0]))[0]
            self.parts.append(f'<path class="rule" d="M{at:.1f} {ABOVE}V{HEIGHT - BELOW}"/>')
            self.parts.append(self._text(at, HEIGHT - BELOW + 16, format(value, form), "middle", "minor"))
        for value in ticks(*y):
            at = self.at((x[0], value))[1]
            self.parts.append(f'<path class="rule" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
            self.parts.append(self._text(LEFT - 6, at + 4, format(value, form), "end", "minor"))
        self.parts.append(self._text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_name, "middle"))
        if y_name:
            self.parts.append(
                f'<text transform="translate(12 {(ABOVE + HEIGHT - BELOW) / 2:.0f}) rotate(-90)" text-anchor="middle">'
                f"{written(y_name)}</text>"
            )

    def at(self, point: Point) -> Point:
        """Where a point lies in the picture."""
        across = (point[0] - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (point[1] - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BELOW - up * (HEIGHT - ABOVE - BELOW)

    def _text(self, x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
        look = f' class="{kind}"' if kind else ""
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{look}>{written(text)}</text>'

    def line(self, points: Sequence[Point], kind: str) -> None:
        """A line through points; `kind`: classes of the page's style."""
        if points:
            way = "L".join(f"{x:.1f} {y:.1f}" for x, y in map(self.at, points))
            self.parts.append(f'<path class="{kind}" d="M{way}"/>')

    def dots(self, points: Sequence[Point], radii: Sequence[float], kind: str) -> None:
        """Circles at points."""
        for point, radius in zip(points, radii, strict=True):
            x, y = self.at(point)
            self.parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')

    def note(self, point: Point, text: str, kind: str = "halo", anchor: str = "start") -> None:
        """A text at a point."""
        self.parts.append(self._text(*self.at(point), text, anchor, kind))

    def svg(self) -> str:
        """The picture."""
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{written(self.alt)}">'
            f"{''.join(self.parts)}</svg>"
        )


def scatter_map(
    places: Sequence[Point], groups: Sequence[int], names: Sequence[tuple[Point, str]], alt: str, height: int = 560
) -> str:
    """Points without axes, coloured by group (-1: none), with names at places of their own."""
    wide = 900
    xs, ys = [p[0] for p in places] or [0.0], [p[1] for p in places] or [0.0]
    low_x, span_x, low_y, span_y = min(xs), (max(xs) - min(xs)) or 1, min(ys), (max(ys) - min(ys)) or 1

    def at(point: Point) -> Point:
        return 20 + (point[0] - low_x) / span_x * (wide - 40), 20 + (1 - (point[1] - low_y) / span_y) * (height - 40)

    parts = []
    for place, group in zip(places, groups, strict=True):
        x, y = at(place)
        look = "none" if group < 0 else f"dots c{group % SERIES}"
        parts.append(f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>')
    taken: list[Point] = []
    for place, name in names:
        x, y = at(place)
        x = min(max(x, 4 + 3.4 * len(name)), wide - 4 - 3.4 * len(name))
        for _ in range(40):  # below a name that is there already
            if not any(abs(y - v) < 15 and abs(x - u) < 3.6 * (len(name) + 12) for u, v in taken):
                break
            y += 5 if y < height / 2 else -5
        taken.append((x, y))
        parts.append(f'<text class="halo" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{written(name)}</text>')
    return (
        f'<svg class="map" viewBox="0 0 {wide} {height}" role="img" aria-label="{written(alt)}">{"".join(parts)}</svg>'
    )
