"""A text with some of its tokens taken away: the game that occlusion, Shapley values and faithfulness are played on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.errors import InputError
from cutaway.inspect.attribution import Attribution, residual_of
from cutaway.inspect.measure import measure
from cutaway.inspect.target import Target
from cutaway.inspect.tower import Inputs, StackHandle, one_text, repeated, tower_of

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel

Baseline = str | int | Tensor  # "mean", "zero", the id of a token, or a vector [width]
BATCH = 32


class Masking:
    """One text, a target, and what stands in place of a token that is taken away.

    The stand-in replaces the token's vector only: its position, and its type, stay.
    """

    def __init__(
        self,
        model: LanguageModel,
        inputs: Inputs,
        target: Target | None,
        *,
        row: int = 0,
        tower: str | None = None,
        baseline: Baseline = "mean",
    ) -> None:
        self.model, self.inputs = model, one_text(inputs, row)
        if tower is None and model.base_model.architecture.decoder is not None:
            tower = "encoder"
        self.tower: StackHandle = tower_of(model, tower)
        if self.tower.ids not in self.inputs:
            raise InputError(f"{self.tower.ids} is missing: an attribution begins at token ids.")
        self.target = (target or Target()).fixed(model, self.inputs)
        with torch.no_grad():
            self.vectors = self.tower.vectors(self.inputs[self.tower.ids][0])  # [L, width]
            self.baseline = self._stand_in(baseline).expand_as(self.vectors)

    def _stand_in(self, baseline: Baseline) -> Tensor:
        table: Tensor = self.tower.stack.embed.tokens.weight
        if isinstance(baseline, Tensor):
            if baseline.shape[-1] != table.shape[1]:
                raise InputError(f"baseline has width {baseline.shape[-1]}, but token vectors have {table.shape[1]}.")
            return baseline.to(table)
        if isinstance(baseline, int) and not isinstance(baseline, bool):
            if not 0 <= baseline < len(table):
                raise InputError(f"baseline={baseline} is no id of a token: they end at {len(table) - 1}.")
            return self.tower.vectors(torch.tensor(baseline, device=table.device))
        if baseline == "zero":
            return torch.zeros_like(table[0])
        if baseline != "mean":
            raise InputError(f"baseline={baseline!r} must be 'mean', 'zero', the id of a token or a vector.")
        return self.tower.scaled(table.mean(0))

    @property
    def length(self) -> int:
        return len(self.vectors)

    @property
    def reach(self) -> int:
        """How many of the tokens can matter: in a decoder, those up to the target's position."""
        position = self.target.position
        own = self.tower.spec.causal and self.tower.prefix == tower_of(self.model).prefix
        return position + 1 if own and position is not None else self.length

    def score(self, vectors: Tensor) -> Tensor:
        """The target for texts of these token vectors [n, L, width] -> [n]."""
        with self.tower.reading(vectors):
            return self.target.number(self.model, repeated(self.inputs, len(vectors)))

    @torch.no_grad()
    def values(self, keep: Tensor) -> Tensor:
        """The target with only the kept tokens in place: keep [n, L] bool, or [n, reach] -> [n]."""
        keep = F.pad(keep, (0, self.length - keep.shape[1]), value=True)
        found = [self.score(torch.where(part[..., None], self.vectors, self.baseline)) for part in keep.split(BATCH)]
        return torch.cat(found)

    def every(self) -> tuple[float, float]:
        """The target with all tokens, and with none."""
        both = self.values(torch.tensor([[True], [False]], device=self.vectors.device).expand(2, self.length))
        return float(both[0]), float(both[1])


def check_scores(scores: Sequence[float] | Tensor, length: int) -> Tensor:
    """[L] float; InputError where they do not belong to the text."""
    found = torch.as_tensor(scores, dtype=torch.float64)
    if tuple(found.shape) != (length,):
        raise InputError(f"{list(found.shape)} scores do not belong to a text of {length} tokens.")
    return found


@measure
def occlude(
    model: LanguageModel,
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


@measure
def shapley_values(
    model: LanguageModel,
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
