"""Text from the tokens of one answer, piece by piece, up to the first stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cutaway.generate.incremental_decoding import IncrementalDecoder

if TYPE_CHECKING:
    from cutaway.tokenization.protocols import TokenizerLike


class TextReader:
    """Gives out characters as soon as they are whole and cannot belong to a stop string.

    stopped: whether a stop string has come; it is no part of the text, nor is what follows it.
    """

    def __init__(self, tokenizer: TokenizerLike, context: Sequence[int], stops: Sequence[str] = ()) -> None:
        self.characters = IncrementalDecoder(tokenizer, context, skip_special_tokens=True)
        self.stops, self.held, self.stopped = tuple(stops), "", False

    def add(self, token: int, *, last: bool) -> str:
        """The piece of text that one more token lets go."""
        if self.stopped:
            return ""
        self.held += self.characters.add(token) + (self.characters.flush() if last else "")
        ends = [at for at in map(self.held.find, self.stops) if at >= 0]
        if ends:
            self.stopped = True
            piece, self.held = self.held[: min(ends)], ""
            return piece
        keep = 0 if last else begun(self.held, self.stops)
        piece, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return piece


def begun(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of one of `marks`."""
    longest = max(map(len, marks), default=1) - 1
    for n in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-n:]) for mark in marks):
            return n
    return 0
