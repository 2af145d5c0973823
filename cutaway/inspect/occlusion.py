"""Attribution by taking tokens away."""

from __future__ import annotations

from typing import Any

import torch

from cutaway.errors import InputError
from cutaway.inspect.gradients import Attribution
from cutaway.inspect.masking import Baseline, Masking
from cutaway.inspect.target import Target
from cutaway.inspect.tower import Inputs


def occlude(
    model: Any,
    inputs: Inputs,
    target: Target | None = None,
    *,
    row: int = 0,
    tower: str | None = None,
    baseline: Baseline = "mean",
    width: int = 1,
) -> Attribution:
    """f(x) - f(x without the token) (Zeiler and Fergus, 2014, 1311.2901).

    With a width above 1, windows of so many tokens are taken away, and a token's score is the mean over its windows,
    divided by the width. Two tokens that say the same hide each other: neither is missed alone.
    """
    game = Masking(model, inputs, target, row=row, tower=tower, baseline=baseline)
    if not 1 <= width <= game.length:
        raise InputError(f"width={width} must lie in 1..{game.length}, the tokens of the text.")
    windows = game.length - width + 1
    at = torch.arange(game.length, device=game.vectors.device)
    first = torch.arange(windows, device=game.vectors.device)[:, None]
    gone = (at >= first) & (at < first + width)  # [windows, L]
    value, base = game.every()
    drops = value - game.values(~gone)
    drops[game.reach :] = 0.0  # there only rounding could differ
    shares = gone.to(drops)
    scores = (drops[:, None] * shares).sum(0) / shares.sum(0) / width
    return Attribution("occlusion", scores, game.target, value, base, None, windows)
