"""An input of one text and several that are compared for it: a query and documents, a prompt and choices."""

from __future__ import annotations

from collections.abc import Mapping

from cutaway.errors import InputError


def one_and_several(item: object, task: str, one: str, several: str, each: str) -> tuple[str, list[str]]:
    """The text and the texts of {one: a text, several: texts}.

    Args:
        task: of the pipeline. each: what one of the several is, for the message.

    Raises:
        InputError: it is anything else.
    """
    if isinstance(item, Mapping) and set(item) == {one, several}:
        text, texts = item[one], item[several]
        listed = isinstance(texts, list | tuple) and all(isinstance(other, str) for other in texts)
        if isinstance(text, str) and listed and texts:
            return text, list(texts)
    raise InputError(
        f"{task} got {item!r:.80}. Call pipe('a {one}', ['a {each}', ...]), or pass "
        f"{{{one!r}: ..., {several!r}: [...]}}."
    )
