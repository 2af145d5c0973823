"""What a pipeline is called with, read as one kind of input: for pipelines of one's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from cutaway.errors import InputError

Offsets = list[tuple[int, int]]


class ArgumentHandler(ABC):
    """Reads the arguments of a call."""

    @abstractmethod
    def __call__(self, *args: object, **kwargs: object) -> object:
        """What the arguments are."""


class TokenClassificationInputs(NamedTuple):
    """inputs: the texts. offset_mapping: the characters of each token of each text, where they were given.

    is_split_into_words: whether each text is a list of words, which `delimiter` joins.
    """

    inputs: list[str] | list[list[str]]
    is_split_into_words: bool
    offset_mapping: list[Offsets] | None
    delimiter: str | None


class TokenClassificationArgumentHandler(ArgumentHandler):
    """Reads the texts of a call that labels tokens, and where the caller says that their tokens are."""

    def __call__(  # type: ignore[override]
        self,
        inputs: str | list[str] | list[list[str]],
        *,
        is_split_into_words: bool = False,
        delimiter: str | None = None,
        offset_mapping: Offsets | list[Offsets] | None = None,
    ) -> TokenClassificationInputs:
        """One text, or a list of them; one offset_mapping for one text, or one for each of the list.

        Raises:
            InputError: there is no text, or not one offset_mapping for each.
        """
        texts: list[Any]
        if isinstance(inputs, str):
            texts = [inputs]
        elif isinstance(inputs, list | tuple) and len(inputs):
            texts = [list(inputs)] if is_split_into_words and isinstance(inputs[0], str) else list(inputs)
        else:
            raise InputError("there is no text: give one, or a list of them.")
        if offset_mapping is None:
            return TokenClassificationInputs(texts, is_split_into_words, None, delimiter)
        each = list(offset_mapping)
        if each and isinstance(each[0], tuple):
            each = [each]
        if len(each) != len(texts):
            raise InputError(f"there are {len(texts)} texts and {len(each)} offset_mapping: give one for each text.")
        return TokenClassificationInputs(texts, is_split_into_words, each, delimiter)  # type: ignore[arg-type]
