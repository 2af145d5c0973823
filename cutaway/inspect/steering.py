"""Turning a model's answers by adding a direction to its stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.inspect.measure import measure
from cutaway.inspect.result import Result
from cutaway.inspect.tower import Inputs, StackHandle, tower_of

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class SteeringVector(Result):
    """A direction `vector` [H] at `address`."""

    address: str
    vector: Tensor

    @contextmanager
    def steer(self, model: LanguageModel, strength: float = 1.0) -> Iterator[None]:
        """Inside, strength * vector is added at every position, also while the model generates."""
        with model.edit({self.address: lambda state: state + strength * self.vector.to(state)}):
            yield


@torch.no_grad()
@measure
def steering_vector(
    model: LanguageModel, positive: Inputs, negative: Inputs, layer: int, *, tower: str | None = None, last: bool = True
) -> SteeringVector:
    """Mean state of the positive texts minus that of the negative ones, after block `layer`.

    Turner et al. (2023, 2308.10248); Rimsky et al. (2024, 2312.06681): a mean over many pairs, at the last token.

    Args:
        last: each text's last token; otherwise the mean over all of its tokens.
    """
    handle = tower_of(model, tower)
    address = handle.at(f"blocks.{layer}.resid")
    means = [_mean(model, handle, inputs, address, last) for inputs in (positive, negative)]
    return SteeringVector(address, means[0] - means[1])


def _mean(model: LanguageModel, tower: StackHandle, inputs: Inputs, address: str, last: bool) -> Tensor:
    with model.record(address) as r:
        model(**inputs)
    real = tower.real(inputs)
    states: Tensor = r[address]
    if last:
        at = (real * torch.arange(real.shape[1], device=real.device)).amax(1)
        vectors = states[torch.arange(len(at), device=at.device), at]  # [B, H]
    else:
        share = real.to(states)[..., None]
        vectors = (states * share).sum(1) / share.sum(1)
    mean: Tensor = vectors.mean(0)
    return mean
