"""Fit: texts become rows that the model can take; one that is too long is an error, is cut, or comes in windows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from cutaway.errors import InputError, nearest
from cutaway.pipelines.plan import Row, Window, windows

if TYPE_CHECKING:
    from tokenizers import Encoding

    from cutaway.models.protocols import LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike

logger = logging.getLogger("cutaway")

WAYS = ("error", "truncate", "window")
Text = str | tuple[str, str]


class Fit(NamedTuple):
    """How texts are made to fit.

    Attributes:
        longest: the most tokens that a row may have, special tokens included; None for no bound.
        long: "error", "truncate" or "window".
        offers: the ways that the task has, for the message.
        overlap: how many tokens neighbouring windows share; None for a quarter of a window, at most 128.
        part: 0 or 1, the text of a pair that is put into windows.
        cutting: which text of a pair is cut, in the tokenizer's terms.
        room: the most tokens of the text in one window, for texts that must all come in the same windows.
        spans: say for every row which tokens of the text it holds.
        options: further arguments of the tokenizer call.
    """

    longest: int | None
    long: str = "error"
    offers: tuple[str, ...] = WAYS
    overlap: int | None = None
    part: int = 0
    cutting: bool | str = True
    room: int | None = None
    spans: bool = False
    options: Mapping[str, Any] = MappingProxyType({})


def longest_input(model: LanguageModel, tokenizer: TokenizerLike) -> int | None:
    """The most tokens that the model and its tokenizer take, or None where neither sets a bound."""
    found = tokenizer.model_max_length
    of_model = getattr(model.architecture.stack, "longest", None)
    if of_model is not None and of_model < found:
        found = of_model
    return found if found < 10**9 else None  # a tokenizer without a bound says 1e30


def check_long(value: object, offers: tuple[str, ...]) -> str:
    """The way to treat long texts that a call asked for; "error" unless given."""
    if value is None:
        return "error"
    if value not in offers:
        raise InputError(f"long={value!r} is not a way that this task has.{nearest(str(value), offers)}")
    return str(value)


def fit(tokenizer: TokenizerLike, texts: Sequence[Text], how: Fit) -> list[list[Row]]:
    """The rows of each text: one, or as many as it has windows.

    Raises:
        InputError: a text is longer than the model takes and the call did not say what to do with it.
    """
    if not texts:
        return []
    options = dict(how.options)
    truncate = how.long == "truncate"
    if truncate or options.get("truncation"):
        options["truncation"] = options.get("truncation") or how.cutting
        if options.get("max_length") is None:
            options["max_length"] = how.longest
    # what is not asked for here is read from the encodings
    encoding = tokenizer(
        list(texts), verbose=False, return_attention_mask=False, return_token_type_ids=False, **options
    )
    assert encoding.encodings is not None  # the tokenizer made them now
    types = "token_type_ids" in tokenizer.model_input_names
    is_placed = how.room is not None or how.spans or how.long == "window"
    found = []
    for text, one, ids, cut in zip(texts, encoding.encodings, encoding["input_ids"], encoding.cut, strict=True):
        n = len(ids)
        first, last = _place(one, how.part) if is_placed else (0, n)
        if (how.longest is not None and n > how.longest) or (how.room is not None and last - first > how.room):
            if how.long != "window":
                raise InputError(_too_long(text, n, how))
            found.append(_in_windows(one, how, types))
            continue
        inputs = {"input_ids": ids, "token_type_ids": one.type_ids} if types else {"input_ids": ids}
        window = None
        if how.spans or how.long == "window":
            window = Window(0, last - first, 0, last - first, first, first)
        found.append([Row(inputs, one, window, cut=cut)])
    lost = [row.cut for rows in found for row in rows if row.cut]
    if lost and truncate:
        logger.warning(
            'long="truncate": %d of %d texts were longer than %s tokens; %d tokens were cut in all, at most %d from '
            "one text.",
            len(lost), len(texts), how.longest, sum(lost), max(lost),
        )  # fmt: skip
    return found


def _place(encoding: Encoding, part: int) -> tuple[int, int]:
    """Where the tokens of a text lie in its encoding: from, up to."""
    own = [i for i, sequence in enumerate(encoding.sequence_ids) if sequence == part]
    return (own[0], own[-1] + 1) if own else (0, 0)


def _in_windows(encoding: Encoding, how: Fit, types: bool) -> list[Row]:
    ids, type_ids = encoding.ids, encoding.type_ids
    first, last = _place(encoding, how.part)
    room = how.room if how.room is not None else (how.longest or 0) - (len(ids) - (last - first))
    if room < 1:
        raise InputError(
            f"The special tokens and the text beside the long one take {len(ids) - (last - first)} tokens; of the "
            f"{how.longest} that fit, none is left for the long text. Shorten the other text."
        )
    overlap = min(room // 4, 128) if how.overlap is None else how.overlap
    rows = []
    for start, end, own_start, own_end in windows(last - first, room, overlap):
        keep = [*range(first), *range(first + start, first + end), *range(last, len(ids))]
        inputs = {"input_ids": [ids[i] for i in keep]}
        if types:
            inputs["token_type_ids"] = [type_ids[i] for i in keep]
        rows.append(Row(inputs, encoding, Window(start, end, own_start, own_end, first, first)))
    return rows


def _too_long(text: Text, n: int, how: Fit) -> str:
    shown = text if isinstance(text, str) else text[how.part]
    ways = []
    if "truncate" in how.offers:
        ways.append('Pass long="truncate" (or truncation=True) to cut it there')
    if "window" in how.offers:
        ways.append('long="window" to read all of it in overlapping pieces')
    end = f" {', or '.join(ways)}." if ways else " Shorten it."
    return f"The text {shown[:40]!r}... has {n} tokens, the model takes {how.longest}.{end}"
