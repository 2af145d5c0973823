"""Plan: rows of ids in batches of so many tokens, sorted by length, and long texts in windows.

Neither changes a result: a padded position is never computed, and every answer goes back to the place of its input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cutaway.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Encoding


@dataclass(frozen=True)
class Window:
    """A stretch of a text's tokens that goes through the model at once.

    Attributes:
        start, end: its tokens, counted in the text.
        own_start, own_end: those that the answer takes from this window; each token of the text is owned once, by the
            window in which it stands farther from an inner edge.
        row: where token `start` lies in the row of ids.
        text: where token 0 of the text lies in the encoding of the whole text.
    """

    start: int
    end: int
    own_start: int
    own_end: int
    row: int
    text: int


@dataclass
class Row:
    """One row of ids for the model, and what it came from.

    Attributes:
        inputs: name -> values, one per token.
        encoding: the Rust encoding of the whole text (or pair), for tokens, words and character offsets.
        window: which of the text's tokens this row holds, where the task asked for windows.
        group: which text of the input this row belongs to, for tasks whose input holds several.
        cut: how many tokens of the text were left out.
        adapter: the one that acts on it, where the call names adapters.
    """

    inputs: dict[str, list[int]]
    encoding: Encoding | None = None
    window: Window | None = None
    group: int = 0
    cut: int = 0
    adapter: str | None = None

    @property
    def length(self) -> int:
        return len(self.inputs["input_ids"])

    @property
    def own(self) -> tuple[int, int]:
        """The positions (from, up to) that an answer takes from this row.

        Special tokens belong to the first and the last window of a text.
        """
        window = self.window
        if window is None:
            return 0, self.length
        shift = window.row - window.start
        assert self.encoding is not None
        last = len(self.encoding.ids) - (self.length - window.end - shift) == window.text + window.end
        first = 0 if window.start == 0 else window.own_start + shift
        return first, self.length if last else window.own_end + shift


def windows(n: int, room: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """(start, end, own_start, own_end) of windows of at most `room` tokens over `n`, neighbours sharing `overlap`.

    Raises:
        InputError: the overlap leaves a window nothing new.
    """
    if n <= room:
        yield 0, n, 0, n
        return
    if not 0 <= overlap < room:
        raise InputError(
            f"overlap={overlap}: windows of {room} tokens of text can share 0 to {room - 1} tokens. "
            "Leave it out, or pass a smaller one."
        )
    start = own = 0
    while True:
        end = min(start + room, n)
        last = end == n
        own_end = n if last else end - overlap // 2
        yield start, end, own, own_end
        if last:
            return
        start, own = end - overlap, own_end


def shares(rows: Sequence[Row]) -> list[float]:
    """The share of a text's tokens that each of its windows owns; special tokens do not count."""
    owned = [1 if row.window is None else row.window.own_end - row.window.own_start for row in rows]
    total = sum(owned)
    return [n / total if total else 1 / len(rows) for n in owned]


def batches(lengths: Sequence[int], tokens: int, rows: int | None = None) -> Iterator[list[int]]:
    """The indices of `lengths` in batches: similar lengths together, the longest first.

    A batch covers at most `tokens` positions, padding counted, and at most `rows` rows; a longer row goes alone.
    """
    if len(lengths) == 1:
        yield [0]
        return
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and ((len(batch) + 1) * lengths[batch[0]] > tokens or len(batch) == rows):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
