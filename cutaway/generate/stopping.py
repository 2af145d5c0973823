"""What ends a sequence before its length does: end tokens and stop strings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.errors import GenerationError
from cutaway.generate.incremental_decoding import IncrementalDecoder
from cutaway.generate.options import Settings

if TYPE_CHECKING:
    from cutaway.tokenization.protocols import TokenizerLike


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

    def __init__(self, strings: tuple[str, ...], tokenizer: TokenizerLike, contexts: list[list[int]]) -> None:
        self.strings = strings
        self.overlap = max(len(text) for text in strings) - 1
        self.readers = [IncrementalDecoder(tokenizer, context) for context in contexts]
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


@dataclass(frozen=True)
class Limits:
    """What ends a call whatever its texts say: `seconds` from the call, and `cancelled` when it returns True."""

    seconds: float = math.inf
    cancelled: Callable[[], Any] | None = None


class Deadline:
    """Limits whose time has begun to run."""

    def __init__(self, limits: Limits) -> None:
        self.end, self.cancelled = time.monotonic() + limits.seconds, limits.cancelled

    def over(self) -> bool:
        """Asked after each step, so that at least one token is there."""
        return time.monotonic() >= self.end or (self.cancelled is not None and bool(self.cancelled()))


def read_limits(s: Settings) -> Limits:
    """`max_time` (seconds) and `cancel` (a threading.Event, or a function without arguments)."""
    timed, cancel = s["max_time"] is not None, s["cancel"]
    seconds = s.above_zero("max_time", "pass seconds, a number above 0") if timed else math.inf
    asked = getattr(cancel, "is_set", cancel)
    if asked is not None and not callable(asked):
        raise GenerationError(f"cancel={cancel!r}: pass a threading.Event, or a function that returns True to stop.")
    if (timed or asked is not None) and (s.integer("num_beams", 1) or 1) > 1:
        raise GenerationError(
            "max_time and cancel end a text as it is; beams have none before they end. Leave them out."
        )
    return Limits(seconds, asked)
