"""RequiredWords: words that an answer must contain, and how far an answer is from containing them."""

from __future__ import annotations

from collections.abc import Sequence

Form = tuple[int, ...]


class RequiredWords:
    """Words, each with one form or several of which one suffices; a form is a run of ids.

    Everything follows from the answer alone, so a beam carries no state of its own.
    """

    def __init__(self, words: Sequence[Sequence[Form]]) -> None:
        self.words = tuple(dict.fromkeys(tuple(word) for word in words))
        self.total = self.missing(())

    def missing(self, answer: Sequence[int]) -> int:
        """Tokens that must still be written at least; 0 where every word is there.

        Of the words that are not there, at most one is under way: the one whose beginning ends the answer.
        """
        open_words = self._open(answer)
        rest = sum(min(map(len, word)) for word in open_words)
        saved = [min(map(len, word)) - (len(form) - begun(answer, form)) for word in open_words for form in word]
        return rest - max([0, *saved])

    def next_tokens(self, answer: Sequence[int]) -> list[int]:
        """The tokens that bring the answer nearer to a word that is not there."""
        tokens = {form[begun(answer, form)] for word in self._open(answer) for form in word}
        return sorted(tokens)

    def _open(self, answer: Sequence[int]) -> list[tuple[Form, ...]]:
        return [word for word in self.words if not any(contains(answer, form) for form in word)]


def contains(answer: Sequence[int], form: Form) -> bool:
    """Whether the run `form` stands in the answer."""
    n = len(form)
    return any(tuple(answer[i : i + n]) == form for i in range(len(answer) - n + 1))


def begun(answer: Sequence[int], form: Form) -> int:
    """How many of the last tokens of the answer are the first of `form`, short of all of it."""
    most = min(len(form) - 1, len(answer))
    return next((n for n in range(most, 0, -1) if tuple(answer[-n:]) == form[:n]), 0)


def share_out(banks: Sequence[int], places: int) -> list[int]:
    """Which candidates stay in the beam: `places` of them, evenly from every bank, the fullest bank first.

    A bank is a number of required tokens that are there; dynamic beam allocation (Post & Vilar 2018, arXiv:1804.06609)
    gives each an equal share of the beam, and what one does not use goes to the others.

    Args:
        banks: of each candidate, the likeliest first.

    Returns:
        places in `banks`, ascending.
    """
    waiting: dict[int, list[int]] = {}
    for place, bank in enumerate(banks):
        waiting.setdefault(bank, []).append(place)
    chosen: list[int] = []
    turn = 0
    order = sorted(waiting, reverse=True)
    while len(chosen) < min(places, len(banks)):
        chosen += [waiting[bank][turn] for bank in order if turn < len(waiting[bank])][: places - len(chosen)]
        turn += 1
    return sorted(chosen)
