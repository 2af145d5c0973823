"""A running average of the weights (Polyak and Juditsky, 1992), which often evaluates better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cutaway.nn.cpu.torch_private import lerp_each
from cutaway.train.sharding import like


class EMA:
    """average = decay * average + (1 - decay) * weight after each update, for the weights that train."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.held = {name: p.detach().clone() for name, p in self.weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of this step in."""
        lerp_each(list(self.held.values()), list(self.weights.values()), 1 - self.decay)

    @torch.no_grad()
    def put(self, values: dict[str, Tensor]) -> None:
        """Make `values` the weights of the model, which stay the same objects."""
        for name, value in values.items():
            self.weights[name].copy_(like(self.weights[name], value))

    def now(self) -> dict[str, Tensor]:
        """A copy of the weights as they train."""
        return {name: p.detach().clone() for name, p in self.weights.items()}

    @contextmanager
    def shown(self) -> Iterator[dict[str, Tensor]]:
        """Inside, the model has the average; outside, its own weights again. Gives a copy of these."""
        own = self.now()
        self.put(self.held)
        try:
            yield own
        finally:
            self.put(own)
