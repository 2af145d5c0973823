"""How a call asks for padding and truncation, and the padding of rows that are already ids."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cutaway.errors import TokenizerError, nearest
from cutaway.tokenization.backend import LONGEST_ROW, check_length
from cutaway.tokenization.batch_encoding import BatchEncoding
from cutaway.tokenization.special_tokens import SpecialTokens

Padding = Literal["longest", "max_length", "do_not_pad"]
Truncation = Literal["longest_first", "only_first", "only_second", "do_not_truncate"]

_PADDING: tuple[Padding, ...] = ("longest", "max_length", "do_not_pad")
_TRUNCATION: tuple[Truncation, ...] = ("longest_first", "only_first", "only_second", "do_not_truncate")


@dataclass(frozen=True)
class Fit:
    """How rows are made to fit: by padding up, by cutting off, or not at all.

    Attributes:
        padding: what rows are padded to.
        truncation: which text is cut.
        max_length: the length in tokens that both go by; None where neither needs one.
        multiple: pad up to a multiple of this.
        stride: how many tokens neighbouring pieces of an overflowing text share.
    """

    padding: Padding
    truncation: Truncation
    max_length: int | None = None
    multiple: int | None = None
    stride: int = 0


_AS_IT_IS = Fit("do_not_pad", "do_not_truncate")


def ask(
    padding: bool | str,
    truncation: bool | str | None,
    max_length: int | None,
    *,
    model_max_length: int,
    multiple: int | None = None,
    stride: int = 0,
    has_pad_token: bool,
) -> Fit:
    """What a call asks for, from the arguments as people write them.

    `max_length` alone asks for truncation. `truncation=True` without a known length cuts nothing.
    `padding="max_length"` needs a length, from `max_length` or from the model.

    Raises:
        TokenizerError: the arguments are unknown or absurd, contradict each other, or need a pad token.
    """
    if max_length is None and multiple is None and type(stride) is int and stride == 0 and padding is False:
        if truncation is False or truncation is None:  # nothing that could be wrong
            return _AS_IT_IS
    else:
        check_length("max_length", max_length, LONGEST_ROW if padding == "max_length" else 2**62)
        check_length("pad_to_multiple_of", multiple)
        check_length("stride", stride)
    if multiple == 0:
        raise TokenizerError("pad_to_multiple_of is 0; it must be at least 1, or None.")
    if max_length is not None and padding is False and truncation is None:
        truncation = "longest_first"
    pad = _padding(padding)
    cut = _truncation(truncation)
    if padding is True and max_length is not None and cut == "do_not_truncate":
        warnings.warn(
            "max_length has no effect with padding=True and no truncation. Ask for padding='max_length' to pad up to "
            "it, or for truncation=True to cut down to it.",
            stacklevel=4,
        )
    if max_length is None and (pad == "max_length" or cut != "do_not_truncate"):
        if model_max_length <= LONGEST_ROW:
            max_length = model_max_length
        elif pad == "max_length":
            raise TokenizerError(
                f"padding='max_length' needs a length: this tokenizer's model_max_length is {model_max_length:,}. "
                "Give max_length=, or use padding=True to pad to the longest text."
            )
        else:
            cut = "do_not_truncate"
    if pad != "do_not_pad" and not has_pad_token:
        raise TokenizerError(
            "Asked to pad, but this tokenizer has no padding token. Set one first: "
            "tokenizer.pad_token = tokenizer.eos_token."
        )
    if (
        pad != "do_not_pad"
        and cut != "do_not_truncate"
        and multiple
        and max_length is not None
        and max_length % multiple
    ):
        raise TokenizerError(
            f"max_length={max_length} is not a multiple of pad_to_multiple_of={multiple}, so rows cannot be both cut "
            f"to one and padded to the other. Use max_length={max(max_length // multiple, 1) * multiple}."
        )
    return Fit(pad, cut, max_length, multiple, stride)


def _padding(value: bool | str) -> Padding:
    if value is True:
        return "longest"
    if value is False or value is None:
        return "do_not_pad"
    for known in _PADDING:
        if str(getattr(value, "value", value)) == known:
            return known
    raise TokenizerError(f"padding={value!r} is not known; use True, False or one of {', '.join(_PADDING)}.")


def _truncation(value: bool | str | None) -> Truncation:
    if value is True:
        return "longest_first"
    if value is False or value is None:
        return "do_not_truncate"
    for known in _TRUNCATION:
        if str(getattr(value, "value", value)) == known:
            return known
    raise TokenizerError(f"truncation={value!r} is not known; use True, False or one of {', '.join(_TRUNCATION)}.")


def check_side(name: str, side: str) -> None:
    if side not in ("right", "left"):
        raise TokenizerError(f"{name}={side!r} is not known; use 'right' or 'left'.")


def as_columns(features: object, main: str) -> dict[str, Any]:
    """Features as a data set or a collator hands them over, one mapping per row or one of rows, as name -> values.

    Raises:
        TokenizerError: there are no ids, or the rows do not have the same names.
    """
    if isinstance(features, Mapping):
        columns = dict(features)
    elif (
        isinstance(features, Sequence)
        and not isinstance(features, str)
        and all(isinstance(f, Mapping) for f in features)
    ):
        names = list(features[0]) if features else []
        for number, row in enumerate(features):
            if missing := [name for name in names if name not in row]:
                raise TokenizerError(
                    f"Row {number} has no {', '.join(missing)}, but row 0 has; rows must have the same names."
                )
        columns = {name: [row[name] for row in features] for name in names}
    else:
        raise TokenizerError(f"pad() takes a mapping or a list of mappings, not {type(features).__name__}.")
    if main not in columns:
        raise TokenizerError(
            f"pad() needs {main!r}, but got {', '.join(map(str, columns)) or 'nothing'}.{nearest(main, columns)}"
        )
    return columns


def to_python(value: object) -> Any:
    """Tensors and arrays, also inside lists, as plain lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [to_python(item) if not isinstance(item, int) else item for item in value]
    return value


def pad_row(row: dict[str, Any], main: str, length: int, side: str, fills: Mapping[str, int]) -> dict[str, Any]:
    """One row with the entries named in `fills` padded to `length`; the others stay as they are."""
    missing = length - len(row[main])
    if missing <= 0:
        return row
    padded = dict(row)
    for name, fill in fills.items():
        if name in row:
            extra = [fill] * missing
            padded[name] = [*row[name], *extra] if side == "right" else [*extra, *row[name]]
    return padded


class RowPadding(SpecialTokens):
    """The part of a tokenizer that pads rows of ids."""

    model_input_names: Sequence[str] = ("input_ids", "attention_mask")
    padding_side: str = "right"
    pad_token_type_id: int = 0
    model_max_length: int

    def _wants(self, name: str, asked: bool | None) -> bool:
        return name in self.model_input_names if asked is None else asked

    def pad(
        self,
        encoded_inputs: object,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Pad rows that are already ids: a row, a mapping of rows, or a list of mappings, as a collator gets them.

        Entries other than ids and masks (labels, say) are passed on as they are. Tensors come back as tensors.

        Raises:
            TokenizerError: there are no ids, no pad token, or rows that cannot become one tensor.
        """
        main = self.model_input_names[0]
        columns = as_columns(encoded_inputs, main)
        first = columns[main][0] if len(columns[main]) else None
        for candidate in (columns[main], first):
            if return_tensors is None and hasattr(candidate, "tolist"):
                return_tensors = "np" if type(candidate).__module__.partition(".")[0] == "numpy" else "pt"
        columns = {name: to_python(value) for name, value in columns.items()}
        check_side("padding_side", padding_side or self.padding_side)
        fit = ask(
            padding,
            None,
            max_length,
            model_max_length=self.model_max_length,
            multiple=pad_to_multiple_of,
            has_pad_token=self.pad_token_id is not None,
        )
        single = bool(columns[main]) and not isinstance(columns[main][0], list)
        rows = [columns] if single else [{k: v[i] for k, v in columns.items()} for i in range(len(columns[main]))]
        masks = self._wants("attention_mask", return_attention_mask)
        fills = {main: self.pad_token_id or 0, "token_type_ids": self.pad_token_type_id, "special_tokens_mask": 1}
        if masks:
            rows = [row if "attention_mask" in row else {**row, "attention_mask": [1] * len(row[main])} for row in rows]
            fills["attention_mask"] = 0
        if fit.padding != "do_not_pad" and rows:
            length = fit.max_length if fit.padding == "max_length" else max(len(row[main]) for row in rows)
            length = -(-(length or 0) // (fit.multiple or 1)) * (fit.multiple or 1)
            rows = [pad_row(row, main, length, padding_side or self.padding_side, fills) for row in rows]
        names = list(rows[0]) if rows else list(columns)
        data = rows[0] if single else {name: [row[name] for row in rows] for name in names}
        return BatchEncoding(data, tensor_type=return_tensors)
