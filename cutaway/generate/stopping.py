"""What ends a sequence before its length does: end tokens and stop strings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate.characters import Characters

if TYPE_CHECKING:
    from cutaway.generate.plan import Settings


class EndTokens:
    """The sequences whose newest token is one of `ids`."""

    def __init__(self, ids: tuple[int, ...], device: torch.device) -> None:
        self.first = ids[0]
        self.others = torch.tensor(ids[1:], device=device) if len(ids) > 1 else None

    def ended(self, tokens: Tensor) -> Tensor:
        """Takes tokens [A]; returns bool [A]."""
        ended = tokens == self.first
        return ended if self.others is None else ended | torch.isin(tokens, self.others)


class StopStrings:
    """The sequences whose answer has come to contain a stop string.

    Only generated text counts: a stop string in the prompt ends nothing. The token that completes it is the last one,
    so the text may go on past the string by the rest of that token.
    """

    def __init__(self, strings: tuple[str, ...], tokenizer: Any, contexts: list[list[int]]) -> None:
        self.strings = strings
        self.overlap = max(len(text) for text in strings) - 1
        self.readers = [Characters(tokenizer, context) for context in contexts]
        self.tails = ["" for _ in contexts]

    def ended(self, tokens: Tensor) -> Tensor:
        """Takes the tokens [A] of the running sequences, in order; returns bool [A]."""
        found = []
        for row, token in enumerate(tokens.tolist()):
            text = self.tails[row] + self.readers[row].add(token)
            found.append(any(stop in text for stop in self.strings))
            self.tails[row] = text[-self.overlap :] if self.overlap else ""
        return torch.tensor(found, device=tokens.device)

    def select(self, keep: Tensor) -> None:
        """Leaves only the sequences at the positions `keep` [K] of the running ones."""
        self.readers = [self.readers[i] for i in keep.tolist()]
        self.tails = [self.tails[i] for i in keep.tolist()]


class Deadline:
    """When a call is over whatever its texts say: after `seconds` from the call, or when `cancelled` says so."""

    def __init__(self, seconds: float | None, cancelled: Callable[[], Any] | None) -> None:
        self.end = math.inf if seconds is None else time.monotonic() + seconds
        self.cancelled = cancelled

    def over(self) -> bool:
        """Asked after each step, so that at least one token is there."""
        return time.monotonic() >= self.end or (self.cancelled is not None and bool(self.cancelled()))


def read_deadline(s: Settings) -> Deadline:
    """`max_time` (seconds) and `cancel` (a threading.Event, or a function without arguments)."""
    seconds, cancel = s["max_time"], s["cancel"]
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0):
        raise GenerationError(f"max_time={seconds!r}: pass seconds, a number above 0.")
    asked = getattr(cancel, "is_set", cancel)
    if asked is not None and not callable(asked):
        raise GenerationError(f"cancel={cancel!r}: pass a threading.Event, or a function that returns True to stop.")
    if (seconds is not None or asked is not None) and (s.integer("num_beams", 1) or 1) > 1:
        raise GenerationError(
            "max_time and cancel end a text as it is; beams have none before they end. Leave them out."
        )
    return Deadline(seconds, asked)
