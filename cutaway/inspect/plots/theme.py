"""The colours of a picture, on light or dark paper: ramps run from the paper's end, so more always stands out more."""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.show import palette


@dataclass(frozen=True)
class Theme:
    """Colours of one kind of paper.

    `share` and `measure` go from nothing to much. `signed` goes from blue (below 0) over the paper to orange (above 0),
    which red-green and blue-yellow blindness keep apart. `series`: lines of one picture (Okabe and Ito, 2008).
    """

    paper: str
    ink: str
    muted: str
    accent: str
    track: str
    share: tuple[str, ...]
    measure: tuple[str, ...]
    signed: tuple[str, ...]
    series: tuple[str, ...]


LIGHT = Theme(
    paper=palette.PAPER,
    ink=palette.INK,
    muted=palette.MUTED,
    accent=palette.ACCENT,
    track="#eef2f7",
    share=palette.ATTENTION,
    measure=palette.MEASURE,
    signed=("#0b4682", "#1767a8", "#6fafd9", "#d6e6f4", "#f9f9f8", "#f9dfc4", "#ec9f57", "#c25e12", "#7a3606"),
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6a00", "#6f4fa8"),
)
DARK = Theme(
    paper="#12171f",
    ink="#e8edf4",
    muted="#9aa7b8",
    accent="#ff9d5c",
    track="#222b38",
    share=("#1a222d", "#14304c", "#124a78", "#1f6cac", "#3f94d6", "#7cbcec", "#b9dcf7", "#eef7ff"),
    measure=("#221d17", "#42301a", "#6b451a", "#99601c", "#c98026", "#e9a552", "#f7cf96", "#fff2df"),
    signed=("#a9d8ff", "#5aa9e6", "#2f72a8", "#20405c", "#1d242e", "#54371f", "#a05f22", "#ea9445", "#ffd6a6"),
    series=("#56b4e9", "#ff9d5c", "#3ccf9f", "#e59ac5", "#f0d35e", "#9db4ff"),
)


def theme_of(dark: bool) -> Theme:
    return DARK if dark else LIGHT
