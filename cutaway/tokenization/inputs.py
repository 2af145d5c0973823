"""The texts of a tokenizer call, in the many forms people pass them, as rows for the Rust library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cutaway.errors import TokenizerError


class TextRows(NamedTuple):
    """Rows for the Rust library.

    Attributes:
        inputs: a text, a list of words, or a tuple of two of them for each row.
        batched: whether the call was about a list of texts.
    """

    inputs: list[Any]
    batched: bool


def text_rows(text: Any, pair: Any, words: bool) -> TextRows:
    """The rows of `text` (and `pair`); a list may be anything list-like, such as a column of a data set.

    Raises:
        TokenizerError: the two do not have the same form or length.
    """
    text, pair = _listed("text", text), _listed("text_pair", pair)
    if words:
        batched = isinstance(text, list) and bool(text) and not isinstance(text[0], str)
        if batched:
            text = [_listed("text", row) for row in text]
            pair = [_listed("text_pair", row) for row in pair] if isinstance(pair, list) else pair
        elif isinstance(text, str):
            raise TokenizerError("is_split_into_words=True takes a list of words, but text is one string.")
    else:
        batched = isinstance(text, list)
    if not batched:
        # As in Transformers, an empty second text of a single call is no second text.
        return TextRows([(text, pair) if pair else text], False)
    if pair is None:
        return TextRows([tuple(row) if isinstance(row, list) and not words else row for row in text], True)
    if not isinstance(pair, list) or len(pair) != len(text):
        count = len(pair) if isinstance(pair, list) else "one text"
        raise TokenizerError(
            f"text is a list of {len(text)}, so text_pair must be a list of {len(text)} too, not {count}."
        )
    return TextRows(list(zip(text, pair, strict=True)), True)


def _listed(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (str, list)):
        return value
    if hasattr(value, "tolist"):  # numpy, pandas
        return value.tolist()
    if isinstance(value, (bytes, Mapping)) or not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
        raise TokenizerError(f"{name} must be a text or a list of texts, not {type(value).__name__}.")
    return list(value)


def why_no_text(inputs: list[Any], words: bool) -> str:
    """What the Rust library did not take, in words."""
    what = "a list of words" if words else "a text"
    for number, row in enumerate(inputs):
        for part in row if isinstance(row, tuple) else (row,):
            pieces = part if words and isinstance(part, list) else [part]
            for piece in pieces:
                if not isinstance(piece, str):
                    return f"Text {number} must be {what}, but it holds {piece!r:.60} ({type(piece).__name__})."
                if not _is_unicode(piece):
                    return f"Text {number} holds half of a surrogate pair, which is no character: {piece!r:.60}."
    return f"Each text must be {what}, or a pair of two."


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
