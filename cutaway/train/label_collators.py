"""Batches whose labels are as long as a text: one for each token, or a target text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.errors import ConfigError, InputError
from cutaway.nn.decoder_inputs import decoder_reads
from cutaway.nn.losses import IGNORED
from cutaway.tokenization.batch_encoding import BatchEncoding
from cutaway.tokenization.protocols import PaddingTokenizer
from cutaway.train.collator import as_asked

_NAMES = ("label", "labels", "label_ids")


def _split(features: Sequence[Mapping[str, Any]], who: str) -> tuple[list[dict[str, Any]], list[list[int]] | None]:
    """(the rows without labels, the labels as lists, or None where there are none)."""
    if len(features) == 0:
        raise InputError(f"{who} was given no examples; a batch needs at least one.")
    rows = [dict(f) for f in features]
    name = next((n for n in _NAMES if n in rows[0]), None)
    if name is None:
        return rows, None
    labels = [row.pop(name) for row in rows]
    if all(one is None for one in labels):
        return rows, None
    return rows, [v.tolist() if hasattr(v, "tolist") else list(v) for v in labels]


def padded_labels(labels: list[list[int]], length: int, fill: int, side: str) -> Tensor:
    """Labels [rows, length], with `fill` on the side ("right" or "left") where a row ends early."""
    rows = [[*v, *[fill] * (length - len(v))] if side == "right" else [*[fill] * (length - len(v)), *v] for v in labels]
    return torch.tensor(rows, dtype=torch.int64)


@dataclass
class DataCollatorForTokenClassification:
    """Pad texts with the tokenizer, and their labels with -100 on the same side."""

    tokenizer: PaddingTokenizer
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = -100
    return_tensors: str = "pt"

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> BatchEncoding:
        """Rows with a list of labels each -> a batch with labels [rows, length].

        Raises:
            InputError: no rows, or a row whose labels are not one for each token.
        """
        rows, labels = _split(features, "DataCollatorForTokenClassification")
        for row, own in zip(rows, labels or [], strict=False):
            if len(own) != len(row["input_ids"]):
                raise InputError(
                    f"a row has {len(own)} labels but {len(row['input_ids'])} tokens; give each token one (-100 for "
                    "special tokens and for the later pieces of a word)."
                )
        batch: BatchEncoding = self.tokenizer.pad(
            rows,
            padding=self.padding,
            max_length=self.max_length,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors="pt",
        )
        if labels is not None:
            length, side = batch["input_ids"].shape[1], getattr(self.tokenizer, "padding_side", "right")
            batch["labels"] = padded_labels(labels, length, self.label_pad_token_id, side)
        return as_asked(batch, return_tensors or self.return_tensors)  # type: ignore[no-any-return]


@dataclass
class DataCollatorForSeq2Seq:
    """Pad texts with the tokenizer and target texts with -100, on the same side; the decoder reads them shifted right.

    Attributes:
        model: whose config says how a decoder's text begins; without one, decoder_input_ids are left to the model.
    """

    tokenizer: PaddingTokenizer
    model: nn.Module | None = None
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = -100
    return_tensors: str = "pt"

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> BatchEncoding:
        """Rows with `labels`, the ids of a target text -> a batch with labels [rows, target length].

        Raises:
            InputError: no rows. ConfigError: the model is not an encoder-decoder.
        """
        rows, labels = _split(features, "DataCollatorForSeq2Seq")
        batch: BatchEncoding = self.tokenizer.pad(
            rows,
            padding=self.padding,
            max_length=self.max_length,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors="pt",
        )
        if labels is None:
            return as_asked(batch, return_tensors or self.return_tensors)  # type: ignore[no-any-return]
        longest = max(len(v) for v in labels)
        if self.padding == "max_length" and self.max_length is not None:
            longest = max(longest, self.max_length)
        multiple = self.pad_to_multiple_of or 1
        longest = -(-longest // multiple) * multiple
        side = getattr(self.tokenizer, "padding_side", "right")
        batch["labels"] = padded_labels(labels, longest, self.label_pad_token_id, side)
        if self.model is not None:
            if not getattr(self.model, "is_encoder_decoder", False):
                raise ConfigError(f"{type(self.model).__name__} has no decoder of its own; leave model= out.")
            batch["decoder_input_ids"] = decoder_reads(self.model, batch["labels"])
        return as_asked(batch, return_tensors or self.return_tensors)  # type: ignore[no-any-return]


@dataclass
class DataCollatorForMultipleChoice:
    """Pad every choice of every row to one length: ids and masks [rows, choices, length], labels [rows].

    Each row holds a list of ids (and of masks) for each choice, and the number of the right one as `label`.
    """

    tokenizer: PaddingTokenizer
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> dict[str, Any]:
        """Rows -> a batch.

        Raises:
            InputError: no rows, or rows that differ in how many choices they have.
        """
        if len(features) == 0:
            raise InputError("DataCollatorForMultipleChoice was given no examples; a batch needs at least one.")
        name = next((n for n in _NAMES if n in features[0]), None)
        choices = {len(f["input_ids"]) for f in features}
        if len(choices) != 1:
            raise InputError(f"the rows of a batch have {sorted(choices)} choices; give each the same number.")
        n = choices.pop()
        flat = [{k: v[i] for k, v in f.items() if k != name} for f in features for i in range(n)]
        padded: BatchEncoding = self.tokenizer.pad(
            flat,
            padding=self.padding,
            max_length=self.max_length,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors="pt",
        )
        batch: dict[str, Any] = {k: v.view(len(features), n, -1) for k, v in padded.items()}
        if name is not None:
            batch["labels"] = torch.tensor([int(f[name]) for f in features], dtype=torch.int64)
        return as_asked(batch, return_tensors or self.return_tensors)  # type: ignore[no-any-return]


class DataCollatorWithFlattening:
    """The texts of a batch one after another in one row, for a causal model: no padding, no attention across texts.

    `position_ids` begin anew with each text, which is how the model knows them apart. The labels are the ids, or the
    rows' own labels; the first of each text is `separator_id`, since nothing before it predicts it.

    Args:
        return_tensors: "pt" or "np".
        return_position_ids: whether there are any. position_ids_start: the position of a text's first token.
        separator_id: the label of a text's first token.
        return_flash_attn_kwargs: add `cu_seq_lens_q`, `cu_seq_lens_k` (where texts begin and end, in int32) and
            `max_length_q`, `max_length_k`.
        return_seq_idx: add `seq_idx` [1, all], the number of each token's text, in int32.
    """

    def __init__(
        self,
        return_tensors: str = "pt",
        *,
        return_position_ids: bool = True,
        separator_id: int = IGNORED,
        return_flash_attn_kwargs: bool = False,
        return_seq_idx: bool = False,
        position_ids_start: int = 0,
    ) -> None:
        self.return_tensors, self.return_position_ids = return_tensors, return_position_ids
        self.separator_id, self.position_ids_start = separator_id, position_ids_start
        self.return_flash_attn_kwargs, self.return_seq_idx = return_flash_attn_kwargs, return_seq_idx

    def __call__(
        self,
        features: Sequence[Mapping[str, Any]],
        return_tensors: str | None = None,
        separator_id: int | None = None,
    ) -> dict[str, Any]:
        """Rows with input_ids (padding told by attention_mask is left out) -> input_ids, labels, position_ids [1, all].

        Raises:
            InputError: no rows, or a row whose labels are not one for each token.
        """
        rows, labels = _split(features, "DataCollatorWithFlattening")
        first = self.separator_id if separator_id is None else separator_id
        found: dict[str, list[Tensor]] = {"input_ids": [], "labels": [], "position_ids": [], "seq_idx": []}
        lengths: list[int] = []
        for i, row in enumerate(rows):
            ids = torch.as_tensor(row["input_ids"])
            own = ids.clone() if labels is None else torch.tensor(labels[i])
            if own.shape != ids.shape:
                raise InputError(f"a row has {len(own)} labels but {len(ids)} tokens; give each token one.")
            if "attention_mask" in row:
                real = torch.as_tensor(row["attention_mask"]) != 0
                ids, own = ids[real], own[real]
            own[:1] = first
            lengths.append(len(ids))
            found["input_ids"].append(ids)
            found["labels"].append(own)
            found["position_ids"].append(torch.arange(len(ids)) + self.position_ids_start)
            found["seq_idx"].append(torch.full((len(ids),), i, dtype=torch.int32))
        if not self.return_position_ids:
            del found["position_ids"]
        if not self.return_seq_idx:
            del found["seq_idx"]
        batch: dict[str, Any] = {name: torch.cat(parts)[None] for name, parts in found.items()}
        if self.return_flash_attn_kwargs:
            ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
            batch |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends.clone()}
            batch |= dict.fromkeys(("max_length_q", "max_length_k"), max(lengths))
        return as_asked(batch, return_tensors or self.return_tensors)  # type: ignore[no-any-return]
