"""Whether an attribution is true to the model: take away, or put in, the tokens that it says matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.inspect.measure import measure
from cutaway.inspect.perturbation import Baseline, Masking, check_scores
from cutaway.inspect.result import Result
from cutaway.inspect.target import Target
from cutaway.inspect.tower import Inputs

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # of the tokens, as in DeYoung et al.


@dataclass(frozen=True)
class Faithfulness(Result):
    """How an attribution fares; `deletion` and `insertion` are [L + 1], the target's share with 0, 1, ... tokens moved.

    Attributes:
        deletion_area, insertion_area: the mean under each curve; a true ranking has a low one and a high one.
        comprehensiveness: mean fall when the top tokens go (high is good).
        sufficiency: mean fall when only they stay (low is good).
    """

    deletion: Tensor
    insertion: Tensor
    deletion_area: float
    insertion_area: float
    comprehensiveness: float
    sufficiency: float


@measure
def measure_faithfulness(
    model: LanguageModel,
    inputs: Inputs,
    scores: Sequence[float] | Tensor,
    target: Target | None = None,
    *,
    row: int = 0,
    tower: str | None = None,
    baseline: Baseline = "mean",
) -> Faithfulness:
    """Deletion and insertion curves (Petsiuk et al., 2018, 1806.07421); comprehensiveness and sufficiency (DeYoung et
    al., 2020, 1911.03429, with the top 1, 5, 10, 20 and 50% of the tokens).

    f(x) - f(x without the top k), and f(x) - f(only the top k), of the target's probability.

    Args:
        scores: [L], larger for what speaks more for the target.
    """
    share = replace(target or Target(), probability=True)
    game = Masking(model, inputs, share, row=row, tower=tower, baseline=baseline)
    n = game.length
    rank = check_scores(scores, n).argsort(descending=True, stable=True).argsort().to(game.vectors.device)
    counts = torch.arange(n + 1, device=rank.device)[:, None]
    deletion = game.values(rank >= counts)  # [n + 1]
    insertion = game.values(rank < counts)
    top = [max(1, round(share * n)) for share in SHARES]
    full_text = deletion[0]
    return Faithfulness(
        deletion,
        insertion,
        _area(deletion),
        _area(insertion),
        float((full_text - deletion[top]).mean()),
        float((full_text - insertion[top]).mean()),
    )


def _area(curve: Tensor) -> float:
    return float(torch.trapezoid(curve) / (len(curve) - 1))
