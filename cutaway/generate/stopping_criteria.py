"""What ends texts, as objects: for `generate(stopping_criteria=[...])` and for loops of one's own.

Each is called with (input_ids [B, L], scores) after a step and says for each text whether it ends: bool [B].
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.errors import GenerationError

if TYPE_CHECKING:
    from cutaway.tokenization.protocols import TokenizerLike

log = logging.getLogger("cutaway")
# the scores [B, V] of this step, or of each step so far
StepScores = Tensor | tuple[Tensor, ...]


class StoppingCriteria:
    """Base of all of them; a class of one's own overrides `__call__`, and returns bool [B] or one bool."""

    def __call__(self, input_ids: Tensor, scores: StepScores, **kwargs: Any) -> Tensor | bool:
        """(ids [B, L] of the texts so far, scores of this step) -> bool [B]."""
        raise NotImplementedError(f"{type(self).__name__} must say when to stop in __call__(input_ids, scores).")


class MaxLengthCriteria(StoppingCriteria):
    """Ends all texts at `max_length` columns, the prompt's included."""

    def __init__(self, max_length: int, max_position_embeddings: int | None = None) -> None:
        self.max_length, self.max_position_embeddings = max_length, max_position_embeddings

    def __call__(self, input_ids: Tensor, scores: StepScores, **kwargs: object) -> Tensor:
        columns, positions = input_ids.shape[1], self.max_position_embeddings
        over = columns >= self.max_length
        if positions is not None and not over and columns > positions:
            log.warning("a text of %d tokens is longer than the %d positions of the model.", columns, positions)
        return torch.full((input_ids.shape[0],), over, dtype=torch.bool, device=input_ids.device)


class MaxTimeCriteria(StoppingCriteria):
    """Ends all texts `max_time` seconds after `initial_timestamp` (time.time()), or after it was made."""

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.max_time = max_time
        self.initial_timestamp = time.time() if initial_timestamp is None else initial_timestamp

    def __call__(self, input_ids: Tensor, scores: StepScores, **kwargs: object) -> Tensor:
        over = time.time() - self.initial_timestamp > self.max_time
        return torch.full((input_ids.shape[0],), over, dtype=torch.bool, device=input_ids.device)


class EosTokenCriteria(StoppingCriteria):
    """Ends a text whose newest token is an end token."""

    def __init__(self, eos_token_id: object) -> None:
        self.eos_token_id = torch.as_tensor(eos_token_id).reshape(-1)

    def __call__(self, input_ids: Tensor, scores: StepScores, new_token_length: int = 1, **kwargs: object) -> Tensor:
        newest = input_ids[:, -new_token_length:]
        return torch.isin(newest, self.eos_token_id.to(input_ids.device)).any(dim=-1)


class StopStringCriteria(StoppingCriteria):
    """Ends a text whose newest token completes a stop string.

    The string may begin anywhere, and its last character may be in the middle of the newest token; a string that was
    whole before that token ends nothing.
    """

    def __init__(self, tokenizer: TokenizerLike, stop_strings: str | list[str]) -> None:
        strings = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        if not strings or not all(isinstance(s, str) and s for s in strings):
            raise GenerationError(f"stop_strings={stop_strings!r}: pass a text or several, none of them empty.")
        self.tokenizer, self.stop_strings = tokenizer, strings
        self.width = max(len(s.encode()) for s in strings) + 4  # a token is at least a byte of text

    def __call__(self, input_ids: Tensor, scores: StepScores, **kwargs: object) -> Tensor:
        ended = []
        for ids in input_ids[:, -self.width :].tolist():
            text, before = (self.tokenizer.decode(part, skip_special_tokens=False) for part in (ids, ids[:-1]))
            ended.append(any(self._completes(stop, text, before) for stop in self.stop_strings))
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)

    @staticmethod
    def _completes(stop: str, text: str, before: str) -> bool:
        at = text.rfind(stop)
        return at >= 0 and at + len(stop) > len(before.rstrip("\ufffd"))


class ConfidenceCriteria(StoppingCriteria):
    """Ends where the likeliest next token is less likely than `assistant_confidence_threshold`."""

    def __init__(self, assistant_confidence_threshold: float) -> None:
        self.assistant_confidence_threshold = assistant_confidence_threshold

    def __call__(self, input_ids: Tensor, scores: StepScores, **kwargs: object) -> bool:
        probability = scores[-1].softmax(-1)[0, input_ids[0, -1]]
        return bool(probability < self.assistant_confidence_threshold)


class StoppingCriteriaList(list[StoppingCriteria]):
    """Criteria; a text ends where one of them says so."""

    def __call__(self, input_ids: Tensor, scores: StepScores, **kwargs: object) -> Tensor:
        """bool [B]."""
        ended = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        for criterion in self:
            ended = ended | criterion(input_ids, scores, **kwargs)
        return ended

    @property
    def max_length(self) -> int | None:
        """The length at which a MaxLengthCriteria among them ends all texts."""
        return next((c.max_length for c in self if isinstance(c, MaxLengthCriteria)), None)


def validate_stopping_criteria(stopping_criteria: StoppingCriteriaList, max_length: int) -> StoppingCriteriaList:
    """The criteria with one for `max_length`, where there is none."""
    checked = StoppingCriteriaList(stopping_criteria)
    if checked.max_length is None:
        checked.append(MaxLengthCriteria(max_length))
    elif checked.max_length != max_length:
        warnings.warn(
            f"the criteria stop at max_length={checked.max_length}, and max_length={max_length} was asked for: "
            "the criteria's counts.",
            UserWarning,
            stacklevel=2,
        )
    return checked
