"""What a tokenizer returns: rows of ids and masks, and the way from a token back to the text.

`BatchEncoding` is a mapping (it goes into a model with `model(**encoding)`), its entries are also attributes, and it
answers where each token came from. `encoding.cut` says how many tokens of each text truncation removed.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tokenizers import Encoding

from cutaway.errors import MissingExtraError, TokenizerError
from cutaway.hub.upstream_types import KnownUpstream

if TYPE_CHECKING:
    import torch


class TokenSpan(NamedTuple):
    """Tokens `start` up to, not including, `end` of one row."""

    start: int
    end: int


class CharSpan(NamedTuple):
    """Characters `start` up to, not including, `end` of the original text."""

    start: int
    end: int


class BatchEncoding(UserDict[str, Any], KnownUpstream):
    """The result of a tokenizer call.

    Args:
        data: name -> values; a list per row for a batch, one flat list for a single text, or tensors.
        encoding: the Rust encodings, one per row; needed by `tokens()`, `word_ids()` and the other lookups.
        tensor_type: None, "pt" or "np": turn every entry into a tensor [rows, length].
        prepend_batch_axis: add the leading axis before turning entries into tensors.
        n_sequences: 1 for single texts, 2 for pairs; read from `encoding` when it is not given.
        cut: how many tokens truncation removed from each text.
    """

    upstream = ("transformers.tokenization_utils_base:BatchEncoding",)
    data: dict[str, Any]

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: Encoding | Sequence[Encoding] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
        cut: Sequence[int] | None = None,
    ) -> None:
        self.data = dict(data or {})
        self._encodings = [encoding] if isinstance(encoding, Encoding) else (None if encoding is None else [*encoding])
        if n_sequences is None and self._encodings:
            n_sequences = self._encodings[0].n_sequences
        self._n_sequences = n_sequences
        self._cut = list(cut) if cut is not None else None
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    # -- as a mapping --------------------------------------------------------------------------------------------

    def __getitem__(self, item: Any) -> Any:
        """An entry by name; the Rust encoding of a row by number; the same rows of every entry by slice."""
        if isinstance(item, str):
            return self.data[item]
        if self._encodings is not None:
            return self._encodings[item]
        if isinstance(item, slice):
            return {key: value[item] for key, value in self.data.items()}
        raise KeyError(f"{item!r}: use a name ({', '.join(self.data)}) or a slice; this encoding keeps no row objects.")

    def __getattr__(self, name: str) -> Any:
        data = self.__dict__.get("data", {})  # copy and pickle ask for attributes before there is any data
        if name in data:
            return data[name]
        raise AttributeError(f"this encoding has no {name!r}; it has {', '.join(data) or 'nothing'}")

    def __getstate__(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "encodings": self._encodings,
            "n_sequences": self._n_sequences,
            "cut": self._cut,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.data = state["data"]
        self._encodings = state["encodings"]
        self._n_sequences = state["n_sequences"]
        self._cut = state["cut"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    # -- about the rows ------------------------------------------------------------------------------------------

    @property
    def encodings(self) -> list[Encoding] | None:
        """The Rust encodings, one per row, or None where the entries did not come from text."""
        return self._encodings

    @property
    def is_fast(self) -> bool:
        return self._encodings is not None

    @property
    def n_sequences(self) -> int | None:
        """1 for single texts, 2 for pairs, None where it is not known."""
        return self._n_sequences

    @property
    def cut(self) -> list[int]:
        """How many tokens truncation removed from each text and no row holds; one number per text."""
        if self._cut is None:
            raise TokenizerError("encoding.cut: these entries were not made from text, so what was cut is not known.")
        return self._cut

    def _row(self, index: int) -> Encoding:
        if self._encodings is None:
            raise TokenizerError(
                "These entries were not made from text, so tokens, words and characters cannot be looked up. "
                "Call the tokenizer on the text itself."
            )
        try:
            return self._encodings[index]
        except IndexError:
            raise TokenizerError(
                f"Row {index} does not exist: this encoding has {len(self._encodings)} rows."
            ) from None

    def _locate(self, first: int, second: int | None) -> tuple[Encoding, int]:
        """The row and the position in it, from `(position)` or `(row, position)`."""
        return (self._row(0), first) if second is None else (self._row(first), second)

    @staticmethod
    def _position(row: Encoding, token: int) -> int:
        position = token + len(row) if token < 0 else token
        if not 0 <= position < len(row):
            raise TokenizerError(f"Token {token} does not exist: the row has {len(row)} tokens.")
        return position

    @staticmethod
    def _count(name: str, value: int) -> int:
        if value < 0:
            raise TokenizerError(f"{name}={value} must not be negative.")
        return value

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row, as the vocabulary spells them."""
        return self._row(batch_index).tokens

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row: 0 (first text), 1 (second text), None (special token or padding)."""
        return self._row(batch_index).sequence_ids

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row: the number of its word, None for special tokens and padding."""
        return self._row(batch_index).word_ids

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The text (0 or 1) that a token comes from, None for a special token."""
        row, token = self._locate(batch_or_token_index, token_index)
        return row.token_to_sequence(self._position(row, token))

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The number of the word that a token is part of, None for a special token."""
        row, token = self._locate(batch_or_token_index, token_index)
        return row.token_to_word(self._position(row, token))

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """The characters of the original text that a token covers, None for a special token."""
        row, token = self._locate(batch_or_token_index, token_index)
        span = row.token_to_chars(self._position(row, token))
        return CharSpan(*span) if span is not None else None

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """The tokens of a word, None where no token of it is left."""
        row, word = self._locate(batch_or_word_index, word_index)
        span = row.word_to_tokens(self._count("word_index", word), sequence_index)
        return TokenSpan(*span) if span is not None else None

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """The characters of a word in the original text."""
        row, word = self._locate(batch_or_word_index, word_index)
        span = row.word_to_chars(self._count("word_index", word), sequence_index)
        return CharSpan(*span) if span is not None else None

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token that covers a character, None where it is between tokens."""
        row, char = self._locate(batch_or_char_index, char_index)
        return row.char_to_token(self._count("char_index", char), sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The number of the word that covers a character, None where it is between words."""
        row, char = self._locate(batch_or_char_index, char_index)
        return row.char_to_word(self._count("char_index", char), sequence_index)

    # -- as tensors ----------------------------------------------------------------------------------------------

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> Self:
        """Turn every entry into a tensor, in place.

        Raises:
            TokenizerError: rows of unequal length, entries that are not numbers, or an unknown `tensor_type`.
        """
        if tensor_type is None:
            return self
        for key, value in self.data.items():
            self.data[key] = as_tensor(key, [value] if prepend_batch_axis else value, tensor_type)
        return self

    def to(self, device: str | int | torch.device, *, non_blocking: bool = False) -> Self:
        """Move every tensor to `device`, in place, and return this encoding. Entries that are no tensors stay."""
        for key, value in self.data.items():
            if callable(getattr(value, "to", None)):
                self.data[key] = value.to(device=device, non_blocking=non_blocking)
        return self


def collect(
    encodings: Sequence[Encoding],
    batched: bool,
    wanted: Mapping[str, bool],
    overflowing: bool,
    tensor_type: str | None,
    cut: Sequence[int],
) -> BatchEncoding:
    """The result of a tokenizer call from the Rust encodings.

    Args:
        encodings: one per text.
        batched: the texts came as a list; otherwise there is one text, and its lists come without a leading axis.
        wanted: which entries, beside "input_ids", are asked for.
        overflowing: also give the rows that hold what was cut off.
        cut: how many tokens each text lost.
    """
    rows = [part for one in encodings for part in ([one, *one.overflowing] if overflowing else [one])]
    data: dict[str, Any] = {"input_ids": [row.ids for row in rows]}
    if wanted["token_type_ids"]:
        data["token_type_ids"] = [row.type_ids for row in rows]
    if wanted["attention_mask"]:
        data["attention_mask"] = [row.attention_mask for row in rows]
    if wanted["special_tokens_mask"]:
        data["special_tokens_mask"] = [row.special_tokens_mask for row in rows]
    if wanted["offset_mapping"]:
        data["offset_mapping"] = [row.offsets for row in rows]
    if wanted["length"]:
        data["length"] = [len(row) for row in rows]
    if overflowing:
        data["overflow_to_sample_mapping"] = [
            i for i, one in enumerate(encodings) for _ in range(1 + len(one.overflowing))
        ]
        cut = [0] * len(encodings)
    if not batched and tensor_type is None and not overflowing:
        data = {key: value[0] if isinstance(value[0], list) else value for key, value in data.items()}
    return BatchEncoding(data, rows, tensor_type, cut=cut)


def as_tensor(key: str, value: object, tensor_type: str) -> Any:
    """One entry as a torch ("pt") or numpy ("np") tensor; integers become int64.

    Raises:
        TokenizerError: the rows do not fit into one tensor; the message says which key and how to go on.
    """
    import numpy as np

    if tensor_type not in ("pt", "np"):
        raise TokenizerError(f"return_tensors={tensor_type!r} is not known; use 'pt' (torch) or 'np' (numpy).")
    if tensor_type == "pt":
        try:
            import torch
        except ImportError:
            raise MissingExtraError("return_tensors='pt' needs torch; install it, or use 'np' (numpy).") from None
        if isinstance(value, torch.Tensor):
            return value
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
            if len({tuple(v.shape) for v in value}) == 1:
                return torch.stack(list(value))
            value = [v.tolist() for v in value]
    elif isinstance(value, np.ndarray) and value.dtype != object:
        return value
    try:
        array = np.array(value)
    except (ValueError, TypeError, OverflowError):  # numpy's word for rows of unequal length
        array = None
    if array is None or array.dtype == object or array.dtype.kind not in "biuf":
        raise TokenizerError(_why_no_tensor(key, value))
    if array.size == 0 or array.dtype.kind in "iu":
        array = array.astype(np.int64)
    if tensor_type == "np":
        return array
    return torch.from_numpy(array).to(torch.get_default_dtype()) if array.dtype.kind == "f" else torch.from_numpy(array)


def _why_no_tensor(key: str, value: object) -> str:
    rows = value if isinstance(value, (list, tuple)) else []
    lengths = {len(row) for row in rows if isinstance(row, (list, tuple))}
    if len(lengths) > 1:
        return (
            f"{key!r} has rows of {min(lengths)} to {max(lengths)} entries, which cannot be one tensor. "
            "Ask for padding=True (and truncation=True), or leave out return_tensors."
        )
    kinds = sorted({type(row).__name__ for row in rows})
    return (
        f"{key!r} cannot be a tensor: it holds {', '.join(kinds) or type(value).__name__}, not numbers in rows of "
        "equal length. Remove this column, or leave out return_tensors."
    )
