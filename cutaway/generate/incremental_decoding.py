"""IncrementalDecoder: text from a growing list of tokens, given out only at whole characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cutaway.tokenization.protocols import TokenizerLike

REPLACEMENT = "\ufffd"  # what a tokenizer writes for the bytes of an unfinished character
CONTEXT = 6  # tokens of the prompt that the first piece is read with: enough for the longest character


class IncrementalDecoder:
    """Turns one sequence's tokens into pieces of text.

    Joined, the pieces are what the tokens add to the text before them: a piece is the difference between two decodings
    that begin at the same token, because tokens read alone lose spaces (sentencepiece) and parts of characters.

    Args:
        tokenizer: anything with `decode(ids, **options) -> str`.
        context: ids before the first piece.
        options: for `decode`.
    """

    def __init__(self, tokenizer: TokenizerLike, context: Sequence[int] = (), **options: bool) -> None:
        self.tokenizer, self.options = tokenizer, options
        self.ids = list(context[-CONTEXT:])
        self.emitted = self._decode() if self.ids else ""  # the text of `ids` that was returned before
        self.read = len(self.ids)

    def _decode(self) -> str:
        text: str = self.tokenizer.decode(self.ids, **self.options)
        return text

    def add(self, token: int) -> str:
        """Takes one more token; returns the characters that are whole now, often one word, sometimes nothing."""
        self.ids.append(token)
        text = self._decode()
        if text.endswith(REPLACEMENT) or len(text) <= len(self.emitted):
            return ""
        return self._give(text)

    def flush(self) -> str:
        """What is left at the end, an unfinished character included."""
        return self._give(self._decode()) if self.read < len(self.ids) else ""

    def _give(self, text: str) -> str:
        piece = text[len(self.emitted) :]
        # The tokens of this piece become the context of the next; older ones cannot change it any more.
        self.ids = self.ids[self.read :]
        self.emitted = self._decode()
        self.read = len(self.ids)
        return piece
