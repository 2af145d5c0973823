"""The result of an attribution method: what each token did to one number of the answer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cutaway.inspect.result import Result
from cutaway.inspect.target import Target


@dataclass(frozen=True)
class Attribution(Result):
    """What each token did to one number of the answer.

    Attributes:
        method: its name. scores: [L], one per token of the text. target: what is explained.
        value, base: that number for the text, and for the text of stand-ins only.
        residual: |sum of scores - (value - base)| / |value - base|; None for methods that promise no sum.
        steps: model evaluations. note: "ranking only" where the residual is above 5%.
    """

    method: str
    scores: Tensor
    target: Target
    value: float
    base: float
    residual: float | None
    steps: int
    note: str = ""


def residual_of(scores: Tensor, value: float, base: float) -> float:
    """How far the scores' sum is from what they should sum to, as a part of it."""
    return abs(float(scores.sum()) - (value - base)) / max(abs(value - base), 1e-12)
