"""Attribution by gradients: which tokens moved an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.inspect.attribution import Attribution, residual_of
from cutaway.inspect.measure import measure
from cutaway.inspect.perturbation import BATCH, Baseline, Masking
from cutaway.inspect.target import Target
from cutaway.inspect.tower import Inputs

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel

GOOD, POOR = 0.01, 0.05  # residuals below which the numbers stand, and above which only their order may


def _slopes(game: Masking, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """(scores [n], their gradients [n, L, width])."""
    with torch.enable_grad():
        leaf = vectors.detach().clone().requires_grad_()
        found = game.score(leaf)
        (slope,) = torch.autograd.grad(found.sum(), leaf)
    return found.detach(), slope


@measure
def integrated_gradients(
    model: LanguageModel,
    inputs: Inputs,
    target: Target | None = None,
    *,
    row: int = 0,
    tower: str | None = None,
    baseline: Baseline = "mean",
    steps: int = 16,
    most: int = 512,
) -> Attribution:
    """(x - b) . integral over a in 0..1 of the gradient at b + a (x - b) (Sundararajan et al., 2017, 1703.01365).

    The baseline b is the mean token vector at every place, positions kept. The integral is Gauss and Legendre's rule,
    with twice as many points until the scores' sum misses f(x) - f(b) by less than 1%. In a decoder, tokens after the
    target's position score exactly 0. A text is computed alone, so its batch does not matter.

    Args:
        row: which text of the batch. tower: "encoder" (unless given) or "decoder", whose tokens are scored.
        steps, most: points to begin with, and at most.
    """
    game = Masking(model, inputs, target, row=row, tower=tower, baseline=baseline)
    value, base = game.every()
    delta = game.vectors - game.baseline
    used = 0
    while True:
        points, weights = np.polynomial.legendre.leggauss(steps)
        at = torch.as_tensor((points + 1) / 2).to(delta)  # [steps] in 0..1
        weight = torch.as_tensor(weights / 2).to(delta)
        total = torch.zeros_like(delta)
        for places, shares in zip(at.split(BATCH), weight.split(BATCH), strict=True):
            _, slope = _slopes(game, game.baseline + places[:, None, None] * delta)
            total += (slope * shares[:, None, None]).sum(0)
        used += steps
        scores = (total * delta).sum(-1)
        residual = residual_of(scores, value, base)
        if residual < GOOD or steps * 2 > most:
            note = "ranking only" if residual > POOR else ""
            return Attribution("integrated gradients", scores, game.target, value, base, residual, used, note)
        steps *= 2


@measure
def input_x_gradient(
    model: LanguageModel, inputs: Inputs, target: Target | None = None, *, row: int = 0, tower: str | None = None
) -> Attribution:
    """x . gradient at x (Shrikumar et al., 2016, 1605.01713): the change to first order if the vector went to 0."""
    game = Masking(model, inputs, target, row=row, tower=tower, baseline="zero")
    found, slope = _slopes(game, game.vectors[None])
    scores = (slope[0] * game.vectors).sum(-1)
    return Attribution("input x gradient", scores, game.target, float(found), game.every()[1], None, 1)
