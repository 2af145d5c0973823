"""A sheet to draw a picture on: lengths in points, y downward from the top; text is text, whatever it holds.

matplotlib's figure objects alone are used (no pyplot, no global state). At the default resolution a point is two
pixels.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutaway import __version__
from cutaway.errors import InputError, MissingExtraError
from cutaway.inspect.plots.theme import LIGHT, Theme
from cutaway.jsonfile import write_aside
from cutaway.show.label import clipped, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DPI = 144
FORMATS = (".png", ".svg", ".pdf")
SMALL, BODY, TITLE = 7.5, 9.0, 15.0
MARGIN = 26.0

# Fonts that are used, where the machine has them, for scripts that matplotlib's own font lacks.
FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari",
    "Noto Sans Thai", "Noto Emoji", "Noto Sans Symbols2", "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans",
    "Apple Symbols", "Arial Unicode MS", "Microsoft YaHei", "Segoe UI Symbol", "Nirmala UI", "Unifont",
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """Where a picture's numbers come from: a model, its text, and the certificate of its attention where it has one."""

    model: str
    text: str
    error: float | None = None
    version: str = __version__

    def line(self, note: str = "") -> str:
        parts = [f"cutaway {self.version}", clipped(self.model, 80), note]
        if self.error is not None:
            parts.append(f"certificate: weights times values are within {self.error:.1g} of the fast kernel's output")
        return drawable(" · ".join(part for part in parts if part))


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the picture as .png, .svg or .pdf. Raises InputError for another ending."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path.name}: a picture's name ends in one of {', '.join(FORMATS)}.")
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # the same run gives the same file
    how: dict[str, Any] = {"dpi": DPI, "format": path.suffix[1:].lower(), "metadata": dated.get(path.suffix.lower())}
    write_aside(path, lambda aside: figure.savefig(aside, **how))


@cache
def _fonts() -> tuple[tuple[str, ...], frozenset[int]]:
    """The families to draw with, in order, and every character that one of them has."""
    from matplotlib.font_manager import findfont, fontManager, get_font

    installed = {entry.name for entry in fontManager.ttflist}
    families = ("DejaVu Sans", *(name for name in FALLBACKS if name in installed))
    characters: set[int] = set()
    for family in families:
        characters.update(get_font(findfont(family)).get_charmap())
    return families, frozenset(characters)


def drawable(text: str) -> str:
    """`text` with □ for each character that no font on this machine can draw."""
    characters = _fonts()[1]

    def shown(character: str) -> str:
        if ord(character) in characters:
            return character
        if 0x2400 <= ord(character) < 0x2420:  # the control pictures of `printable`, which few fonts have
            return "^" + chr(ord(character) - 0x2400 + 64)
        return "□"

    return "".join(shown(character) for character in printable(text))


def ramp(colors: tuple[str, ...], paper: str = LIGHT.paper) -> Colormap:
    """A matplotlib colour map through `colors`; what is not a number is as the paper."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("cutaway", list(colors)).with_extremes(bad=paper)


class Canvas:
    """One figure with its own Agg canvas. `width` and `height` are set by `resize`, before anything is placed."""

    def __init__(self, theme: Theme = LIGHT) -> None:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("Pictures need matplotlib: pip install 'cutaway[plots]'.") from error
        self.theme = theme
        self.figure = Figure(figsize=(1, 1), dpi=DPI, facecolor=theme.paper)
        FigureCanvasAgg(self.figure)
        self.families = list(_fonts()[0])
        self.width = self.height = 1.0

    def resize(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure.set_size_inches(width / 72, height / 72)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes without a frame at this place."""
        axes = self.figure.add_axes(
            (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        )
        axes.set_facecolor("none")
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def plain_axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes in points, y downward, with nothing on them."""
        axes = self.axes(x, y, width, height)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.axis("off")
        return axes

    def style(self, size: float, color: str | None = None, **more: object) -> dict[str, Any]:
        """Keywords of every text of a picture: never mathematics, with the fallback fonts."""
        return {
            "fontsize": size,
            "family": self.families,
            "parse_math": False,
            "color": color or self.theme.ink,
            **more,
        }

    def text(self, x: float, y: float, text: str, size: float, color: str | None = None, **more: object) -> None:
        style = self.style(size, color, **{"va": "center", **more})
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def width_of(self, text: str, size: float) -> float:
        from matplotlib.font_manager import FontProperties

        renderer = self.figure.canvas.get_renderer()  # type: ignore[attr-defined]
        font = FontProperties(family=self.families, size=size)
        pixels: float = renderer.get_text_width_height_descent(text, font, ismath=False)[0]
        return pixels * 72 / DPI

    def widest(self, texts: list[str], size: float) -> float:
        return max((self.width_of(text, size) for text in texts), default=0.0)

    def wrapped(self, text: str, size: float, lines: int) -> list[str]:
        """Lines that fit the sheet, by the mean width of this text's characters (with room for wider lines)."""
        mean = self.width_of(text, size) / max(len(text), 1)
        characters = max(int((self.width - 2 * MARGIN) / max(mean, 1) * 0.93), 8)
        return textwrap.wrap(text, characters, max_lines=lines, placeholder=" …") or [""]

    def bar(self, image: ScalarMappable, x: float, y: float, ticks: dict[float, str], tall: float = 120.0) -> None:
        """The colours' scale, 8 points wide, with these numbers beside it."""
        axes = self.axes(x, y, 8, tall)
        self.figure.colorbar(image, cax=axes)
        style = self.style(SMALL)
        del style["family"]
        axes.set_yticks(list(ticks), list(ticks.values()), **style)
        axes.tick_params(length=2, color=self.theme.muted, pad=2)
        axes.spines["outline"].set_visible(False)

    def frame(self, title: str, body: tuple[float, float], origin: Origin, note: str, caption: str = "") -> float:
        """Size the sheet around a body (width, height), write title, text and provenance; the body's y is returned.

        `note` says what the numbers are, under the title; `caption` joins the provenance.
        """
        least = self.width_of(title, TITLE) * 1.08
        self.width = max(body[0], least, 420.0) + 2 * MARGIN
        quote = self.wrapped(f"“{drawable(origin.text)}”", BODY + 1, 2)
        said = self.wrapped(note, SMALL + 0.5, 3)
        foot = self.wrapped(origin.line(caption), SMALL, 3)
        top = MARGIN + 36 + 14 * len(quote) + 11 * len(said)
        self.resize(self.width, top + body[1] + 34 + 11 * len(foot))
        self.text(MARGIN, MARGIN + 8, title, TITLE, weight="bold")
        for i, line in enumerate(quote):
            self.text(MARGIN, MARGIN + 30 + 14 * i, line, BODY + 1, self.theme.muted)
        for i, line in enumerate(said):
            self.text(MARGIN, MARGIN + 31 + 14 * len(quote) + 11 * i, line, SMALL + 0.5, self.theme.muted)
        for i, line in enumerate(foot):
            self.text(MARGIN, self.height - 18 - 11 * (len(foot) - 1 - i), line, SMALL, self.theme.muted)
        return top
