"""How the vectors of a text's tokens move through the layers, in the plane in which they move most."""

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
    from numpy.typing import ArrayLike, NDArray


def principal_plane(states: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """states [n, L, H] -> (points [n, L, 2], shares [2] of the variance): PCA over all states together.

    Pearson (1901). The sign of an axis is chosen so that its largest coordinate is positive.
    """
    stacked = np.asarray(states, dtype=np.float64)
    if stacked.ndim != 3 or stacked.shape[0] * stacked.shape[1] < 2:
        raise InputError(
            f"states must be [states, tokens, width], two points at least; they are {list(stacked.shape)}."
        )
    flat = stacked.reshape(-1, stacked.shape[-1])  # [n * L, H]
    flat = flat - flat.mean(0)
    left, sizes, _ = np.linalg.svd(flat, full_matrices=False)
    points = left[:, :2] * sizes[:2]
    if points.shape[1] < 2:
        points = np.concatenate([points, np.zeros_like(points)], 1)
    at = np.abs(points).argmax(0)
    points = points * np.where(points[at, [0, 1]] < 0, -1.0, 1.0)
    shares = np.zeros(2)
    shares[: len(sizes[:2])] = sizes[:2] ** 2 / max(float((sizes**2).sum()), 1e-30)
    return points.reshape(*stacked.shape[:2], 2), shares  # [n, L, 2]


def trajectories(
    states: ArrayLike, tokens: Sequence[str], *, title: str, origin: Origin, most: int = 6, dark: bool = False
) -> Figure:
    """One line a token from the embedding (small dot) to the last layer (named); the others are grey.

    Args:
        states: [states, L, H]. tokens: their names. most: how many tokens, those that move furthest, get a colour.
    """
    points, shares = principal_plane(states)
    if points.shape[1] != len(tokens):
        raise InputError(f"{points.shape[1]} states do not belong to {len(tokens)} tokens.")
    canvas = Canvas(theme_of(dark))
    theme = canvas.theme
    names = [drawable(clipped(token, 18)) for token in tokens]
    wide, high = 420.0, 320.0
    label_width = max(canvas.widest(names, BODY) + 34, 100.0)
    note = (
        f"PCA of all states together: the plane holds {shares.sum():.0%} of their variance ({shares[0]:.0%} across, "
        f"{shares[1]:.0%} up); what happens outside of it is not seen. ○ embedding, ● last layer"
    )
    y = canvas.frame(title, (wide + label_width, high + 8), origin, note)
    picture = canvas.axes(MARGIN, y + 4, wide, high)
    picture.set_xticks([])
    picture.set_yticks([])
    picture.patch.set_facecolor(theme.track)
    picture.margins(0.07)
    moved = np.linalg.norm(np.diff(points, axis=0), axis=-1).sum(0)  # [L]
    first = np.sort(np.argsort(-moved, kind="stable")[: min(most, len(theme.series))])
    for i in range(len(names)):
        if i not in first:
            picture.plot(*points[:, i].T, color=theme.muted, alpha=0.35, linewidth=0.8)
    line = 15.0
    canvas.text(MARGIN + wide + 14, y + 12, "furthest moved here", SMALL, theme.muted)
    for n, i in enumerate(first):
        color = theme.series[n]
        picture.plot(*points[:, i].T, color=color, linewidth=1.4, marker=".", markersize=3)
        picture.plot(*points[0, i], color=color, marker="o", markersize=5, markerfacecolor=theme.track)
        picture.plot(*points[-1, i], color=color, marker="o", markersize=6)
        style = canvas.style(SMALL, color, ha="center", va="center", xytext=(0, 8), textcoords="offset points")
        picture.annotate(str(n + 1), points[-1, i], **style)
        canvas.text(MARGIN + wide + 14, y + 28 + line * n, f"{n + 1}  {names[i]}", BODY, color)
    return canvas.figure
