"""A text with some of its tokens taken away: the game that occlusion, Shapley values and faithfulness are played on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.errors import InputError
from cutaway.inspect.target import Target
from cutaway.inspect.tower import Inputs, Tower, logits_of, one_text, repeated, tower_of

Baseline = str | int | Tensor  # "mean", "zero", the id of a token, or a vector [width]
BATCH = 32


class Masking:
    """One text, a target, and what stands in place of a token that is taken away.

    The stand-in replaces the token's vector only: its position, and its type, stay.
    """

    def __init__(
        self,
        model: Any,
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
        self.tower: Tower = tower_of(model, tower)
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
        if isinstance(baseline, int):
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
            return self.target.of(logits_of(self.model, repeated(self.inputs, len(vectors))))

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
