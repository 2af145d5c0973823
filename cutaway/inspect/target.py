"""What of a model's answer is explained: one logit, or one logit against another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import InputError
from cutaway.inspect.tower import Inputs, logits_of, tower_of

if TYPE_CHECKING:
    from cutaway.models.protocols import LanguageModel


@dataclass(frozen=True)
class Target:
    """One number of an answer.

    Attributes:
        index: a class, or the id of a token; None for the one that the model gives most.
        against: another, whose logit is subtracted: why `index` and not `against` (Yin and Neubig, 2022, arXiv
            2202.10419).
        position: in models that answer at every position, the column; None for each text's last token.
        probability: the softmax's share in place of the logit.
    """

    index: int | None = None
    against: int | None = None
    position: int | None = None
    probability: bool = False

    def fixed(self, model: LanguageModel, inputs: Inputs) -> Target:
        """The same with its index and position filled in, for a batch of one text."""
        with torch.no_grad():
            logits = logits_of(model, inputs)
        self._check(logits)
        position = self.position
        if logits.dim() == 3:
            real = tower_of(model).real(inputs)[0]
            last = int((real * torch.arange(len(real), device=real.device)).max())
            position = last if position is None else position % logits.shape[1]
        row = logits[0] if logits.dim() == 2 else logits[0, position]
        index = int(row.argmax()) if self.index is None else self.index
        return Target(index, self.against, position if logits.dim() == 3 else None, self.probability)

    def of(self, logits: Tensor) -> Tensor:
        """logits [n, classes] or [n, length, classes] -> [n]; only of a `fixed` target."""
        row = logits if logits.dim() == 2 else logits[:, self.position]
        if self.probability:
            row = row.softmax(-1)
        found = row[:, self.index]
        return found if self.against is None else found - row[:, self.against]

    def _check(self, logits: Tensor) -> None:
        if logits.dim() not in (2, 3):
            raise InputError(f"the answer to explain must be [batch, (length,) classes]; it is {list(logits.shape)}.")
        for name, value in (("index", self.index), ("against", self.against)):
            if value is not None and not 0 <= value < logits.shape[-1]:
                raise InputError(f"Target {name}={value} must lie in 0..{logits.shape[-1] - 1}.")
        if self.position is not None and logits.dim() == 2:
            raise InputError("Target position= is for models that answer at every position; this one has one answer.")
        if self.position is not None and not -logits.shape[1] <= self.position < logits.shape[1]:
            raise InputError(f"Target position={self.position} must lie in 0..{logits.shape[1] - 1}.")
