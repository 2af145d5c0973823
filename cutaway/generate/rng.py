"""The random numbers of sampling: from torch's global generator, or from one generator per sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 64  # numbers drawn ahead per sequence: a generator's call costs more than its numbers


class SamplingRNG:
    """Uniform numbers in [0, 1), one per sequence and step.

    With seeds, sequence r reads the stream of `torch.Generator().manual_seed(seeds[r])` on the CPU, one number per
    generated token. What it reads depends on nothing but its seed and how many tokens it has: not on the batch, on
    which sequences have ended, or on the device. Without seeds, the numbers come from torch's global CPU generator
    (`torch.manual_seed`).
    """

    def __init__(self, seeds: Sequence[int] | None, device: torch.device) -> None:
        self.device = device
        self.generators = None if seeds is None else [torch.Generator().manual_seed(seed) for seed in seeds]
        self.block: Tensor | None = None  # [rows, BLOCK]
        self.used = BLOCK

    def uniform(self, rows: int) -> Tensor:
        """The next number of each running sequence: float64 [rows]."""
        if self.generators is None:
            return torch.rand(rows, dtype=torch.float64).to(self.device)
        if self.block is None or self.used == BLOCK:
            drawn = [torch.rand(BLOCK, dtype=torch.float64, generator=g) for g in self.generators]
            self.block, self.used = torch.stack(drawn).to(self.device), 0  # [rows, BLOCK]
        self.used += 1
        return self.block[:, self.used - 1]

    def select(self, keep: Tensor) -> None:
        """Leaves only the sequences at the positions `keep` [K] of the running ones."""
        if self.generators is not None:
            self.generators = [self.generators[i] for i in keep.tolist()]
            self.block = None if self.block is None else self.block[keep]
