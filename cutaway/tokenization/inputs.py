"""The texts of a tokenizer call, in the many forms people pass them, as rows for the Rust library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, TypedDict

from cutaway.errors import TokenizerError


class ListLike(Protocol):
    """Something list-like: a list, a tuple, an array, a column of a data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...

    def __iter__(self) -> Iterator[object]: ...


# what a tokenizer reads: a text, texts, or words; text_rows says what is wrong with anything else
TextInput: TypeAlias = str | ListLike | None


class CallOptions(TypedDict, total=False):
    """What a call of a tokenizer may say beside its texts and `add_special_tokens`; see `PreTrainedTokenizerFast`."""

    padding: bool | str
    truncation: bool | str | None
    max_length: int | None
    stride: int
    is_split_into_words: bool
    pad_to_multiple_of: int | None
    padding_side: str | None
    return_tensors: str | None
    return_token_type_ids: bool | None
    return_attention_mask: bool | None
    return_overflowing_tokens: bool
    return_special_tokens_mask: bool
    return_offsets_mapping: bool
    return_length: bool
    split_special_tokens: bool | None
    verbose: bool


class TextRows(NamedTuple):
    """Rows for the Rust library.

    Attributes:
        inputs: a text, a list of words, or a tuple of two of them for each row.
        batched: whether the call was about a list of texts.
    """

    inputs: list[Any]
    batched: bool


def text_rows(text: TextInput, pair: TextInput, words: bool) -> TextRows:
    """The rows of `text` (and `pair`); a list may be anything list-like, such as a column of a data set.

    Raises:
        TokenizerError: the two do not have the same form or length.
    """
    first, second = _listed("text", text), _listed("text_pair", pair)
    batched = isinstance(first, list)
    if words:
        if isinstance(first, list) and first and not isinstance(first[0], str):
            first = [_listed("text", row) for row in first]
            second = [_listed("text_pair", row) for row in second] if isinstance(second, list) else second
        elif isinstance(first, str):
            raise TokenizerError("is_split_into_words=True takes a list of words, but text is one string.")
        else:
            batched = False
    if not isinstance(first, list) or not batched:
        # As in Transformers, an empty second text of a single call is no second text.
        return TextRows([(first, second) if second else first], False)
    if second is None:
        return TextRows([tuple(row) if isinstance(row, list) and not words else row for row in first], True)
    if not isinstance(second, list) or len(second) != len(first):
        count = len(second) if isinstance(second, list) else "one text"
        raise TokenizerError(
            f"text is a list of {len(first)}, so text_pair must be a list of {len(first)} too, not {count}."
        )
    return TextRows(list(zip(first, second, strict=True)), True)


def _listed(name: str, value: TextInput) -> str | list[Any] | None:
    if value is None or isinstance(value, (str, list)):
        return value
    if hasattr(value, "tolist"):  # numpy, pandas
        plain: str | list[Any] = value.tolist()
        return plain
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
