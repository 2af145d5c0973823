"""Colours, the same in the terminal, in pictures and on the page.

Each ramp is one hue from light to dark: order survives every kind of colour blindness and a grey print.
"""

from __future__ import annotations

PAPER = "#ffffff"
INK = "#16202e"
MUTED = "#5b6878"
ACCENT = "#c2410c"

ATTENTION = ("#f5f8fc", "#d6e6f4", "#a9cde8", "#6fafd9", "#3a8bc4", "#1767a8", "#0b4682", "#072655")
MEASURE = ("#fbf7f1", "#f7e2c3", "#f2c48b", "#e79f52", "#cf7a26", "#a8590f", "#7a3c06", "#4a2303")


def rgb(color: str) -> tuple[int, int, int]:
    """'#0b4682' -> (11, 70, 130)."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def at(ramp: tuple[str, ...], share: float) -> tuple[int, int, int]:
    """The colour at `share` (0 to 1, clipped) of a ramp, linear between its stops."""
    place = min(max(share, 0.0), 1.0) * (len(ramp) - 1)
    low = min(int(place), len(ramp) - 2)
    first, second = rgb(ramp[low]), rgb(ramp[low + 1])
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(first, second, strict=True))
    return red, green, blue


def ink_on(color: tuple[int, int, int]) -> str:
    """Black or white, whichever the colour leaves legible (ITU-R BT.601 luma)."""
    red, green, blue = color
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"
