"""Attribution by Shapley values: a token's mean contribution over all orders of putting the text together."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.inspect.gradients import Attribution, residual_of
from cutaway.inspect.masking import Baseline, Masking
from cutaway.inspect.target import Target
from cutaway.inspect.tower import Inputs


def shapley_values(
    model: Any,
    inputs: Inputs,
    target: Target | None = None,
    *,
    row: int = 0,
    tower: str | None = None,
    baseline: Baseline = "mean",
    samples: int = 1024,
    seed: int = 0,
) -> Attribution:
    """phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S)) (Shapley, 1953).

    v(S) is the target with only the tokens of S in place. Where there are no more than `samples` subsets (2^n: up to 10
    tokens) all are asked. Above, kernel SHAP (Lundberg and Lee, 2017, 1705.07874, theorem 2): subsets drawn in pairs by
    the kernel's weights, and the weighted least squares whose solution sums to v(all) - v(none). Its residual is 0
    however few are drawn, so the note says how far a score may be off.

    Args:
        samples: subsets asked at most. seed: of the draw.
    """
    game = Masking(model, inputs, target, row=row, tower=tower, baseline=baseline)
    value, base = game.every()
    if 2**game.reach <= samples:
        scores, used, note = _exact(game), 2**game.reach, ""
    else:
        scores, error = _kernel(game, value, base, samples, seed)
        used, note = 2 * (samples // 2), f"standard error up to {error:.2g}"
    scores = F.pad(scores, (0, game.length - game.reach))  # later tokens of a decoder: exactly 0
    residual = residual_of(scores, value, base)
    return Attribution("Shapley", scores, game.target, value, base, residual, used, note)


def _exact(game: Masking) -> Tensor:
    n = game.reach
    codes = torch.arange(2**n, device=game.vectors.device)
    keep = (codes[:, None] >> torch.arange(n, device=codes.device)) & 1  # [2^n, n]
    values = game.values(keep.bool())
    size = keep.sum(1)
    weight = values.new_tensor([math.factorial(s) * math.factorial(n - s - 1) / math.factorial(n) for s in range(n)])
    scores = []
    for i in range(n):
        without = codes[keep[:, i] == 0]
        gain = values[without + (1 << i)] - values[without]
        scores.append((weight[size[without]] * gain).sum())
    return torch.stack(scores)


def _kernel(game: Masking, value: float, base: float, samples: int, seed: int) -> tuple[Tensor, float]:
    """The scores, and the largest of their standard errors, by how much the pairs that were drawn differ."""
    n = game.reach
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.arange(1, n)
    chance = 1.0 / (sizes * (n - sizes))  # the kernel's weight of all subsets of a size
    drawn = sizes[torch.multinomial(chance / chance.sum(), samples // 2, replacement=True, generator=draw)]
    order = torch.rand(len(drawn), n, generator=draw).argsort(1).argsort(1)
    half = order < drawn[:, None]
    keep = torch.cat((half, ~half)).to(game.vectors.device)  # a subset and its complement cancel what is odd
    gain = game.values(keep).double() - base
    # the last score is what the others leave of the total, so the sum holds
    x = (keep[:, :-1].double() - keep[:, -1:].double()).cpu()
    y = (gain - keep[:, -1].double() * (value - base)).cpu()
    head = torch.linalg.lstsq(x, y[:, None], driver="gelsd").solution[:, 0]
    missed = (x * (y - x @ head)[:, None]).unflatten(0, (2, -1)).sum(0)  # [pairs, n - 1]
    spread = missed @ torch.linalg.pinv(x.T @ x)
    spread = torch.cat((spread, spread.sum(1, keepdim=True)), 1)  # [pairs, n]; the last one's, but for its sign
    error = float(spread.square().sum(0).max().sqrt()) * math.sqrt(len(y) / max(len(y) - n + 1, 1))
    return torch.cat((head, (value - base) - head.sum()[None])).to(game.vectors), error
