"""What of a model's answer is explained: a logit, one against another, a span's two, a choice's, a vector's cosine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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

    def arranged(self, inputs: Inputs) -> Inputs:
        """The inputs of n texts as the model's head takes them."""
        return inputs

    def number(self, model: LanguageModel, inputs: Inputs) -> Tensor:
        """What is explained, for the texts of `inputs`: [n]; only of a `fixed` target."""
        return self.of(logits_of(model, self.arranged(inputs)))

    def log_share(self, out: Mapping[str, Any]) -> Tensor:
        """The log-probability of the answer in a model's output, [n], nats."""
        logits: Tensor = out["logits"]
        row = logits if logits.dim() == 2 else logits[:, self.position]
        return row.log_softmax(-1)[:, self.index]

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


@dataclass(frozen=True)
class SpanTarget(Target):
    """Where an answer lies in a text: the logit of its beginning at `start` plus that of its end at `end`.

    Both are columns; None for the likeliest pair whose end is not before its start, the special tokens included.
    """

    start: int | None = None
    end: int | None = None

    def fixed(self, model: LanguageModel, inputs: Inputs) -> Target:
        with torch.no_grad():
            first, last = (row[0] for row in self._rows(model(**inputs, return_dict=True)))
        length = len(first)
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and not 0 <= value < length:
                raise InputError(f"SpanTarget {name}={value} must lie in 0..{length - 1}.")
        pairs = (first[:, None] + last[None]).masked_fill(
            torch.ones(length, length, dtype=torch.bool, device=first.device).tril(-1), -torch.inf
        )  # [starts, ends]
        if self.start is not None:
            pairs = pairs.where(torch.arange(length, device=pairs.device)[:, None] == self.start, -torch.inf)
        if self.end is not None:
            pairs = pairs.where(torch.arange(length, device=pairs.device) == self.end, -torch.inf)
        start, end = divmod(int(pairs.argmax()), length)
        return replace(self, start=start, end=end)

    def number(self, model: LanguageModel, inputs: Inputs) -> Tensor:
        first, last = self._rows(model(**inputs, return_dict=True))
        return first[:, self.start] + last[:, self.end]

    def log_share(self, out: Mapping[str, Any]) -> Tensor:
        first, last = self._rows(out)
        return first.log_softmax(-1)[:, self.start] + last.log_softmax(-1)[:, self.end]

    def _rows(self, out: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        first, last = out.get("start_logits"), out.get("end_logits")
        if not isinstance(first, Tensor) or not isinstance(last, Tensor):
            raise InputError("SpanTarget is for models with start_logits and end_logits, as question answering has.")
        return first, last


@dataclass(frozen=True)
class ChoiceTarget(Target):
    """The score of one choice; the texts are [n, length], each the prompt with that choice."""

    def fixed(self, model: LanguageModel, inputs: Inputs) -> Target:
        return replace(self, index=0)

    def arranged(self, inputs: Inputs) -> Inputs:
        return {name: value[:, None] for name, value in inputs.items()}  # [n, 1, length]

    def log_share(self, out: Mapping[str, Any]) -> Tensor:
        """The score: against no other choice, its share would be 1."""
        logits: Tensor = out["logits"]
        return logits[:, 0]


@dataclass(frozen=True)
class VectorTarget(Target):
    """The cosine of a text's vector to `vector` [width]; None for the vector of the text itself.

    The vector is the mean of the tokens' last states. Of the text itself the cosine is 1: what it is without a token
    says how much of the vector came from there. The gradient at the text itself is 0, since 1 is the most.
    """

    vector: Tensor | None = None

    def fixed(self, model: LanguageModel, inputs: Inputs) -> Target:
        if self.vector is not None:
            return self
        with torch.no_grad():
            return replace(self, vector=self.pooled(model, inputs)[0])

    def number(self, model: LanguageModel, inputs: Inputs) -> Tensor:
        return self.cosine(self.pooled(model, inputs))

    def cosine(self, vectors: Tensor) -> Tensor:
        """vectors [..., width] -> [...]; only of a `fixed` target."""
        assert self.vector is not None
        return torch.cosine_similarity(vectors, self.vector.to(vectors).expand_as(vectors), dim=-1)

    def pooled(self, model: LanguageModel, inputs: Inputs) -> Tensor:
        """The mean of each text's states, [n, width]."""
        states: Tensor = model.base_model(**inputs, return_dict=True).last_hidden_state
        real = tower_of(model).real(inputs)[..., None].to(states)  # [n, length, 1]
        return (states * real).sum(1) / real.sum(1)
