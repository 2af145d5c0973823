"""From a list of encoded examples to one padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cutaway.encoding import BatchEncoding
from cutaway.errors import InputError


@dataclass
class DataCollatorWithPadding:
    """Pad the examples of a batch to one length, as the tokenizer pads; `label` and `label_ids` become `labels`.

    Attributes:
        tokenizer: whose `pad` is called.
        padding: True (the longest example), "max_length" or False.
        max_length: the length for "max_length".
        pad_to_multiple_of: round the length up to a multiple.
        return_tensors: "pt" or "np".
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> BatchEncoding:
        """Examples (dicts of ids, masks and a label) -> a batch of [examples, length].

        Raises:
            InputError: no examples.
        """
        if len(features) == 0:
            raise InputError("DataCollatorWithPadding was given no examples; a batch needs at least one.")
        batch: BatchEncoding = self.tokenizer.pad(
            [dict(f) for f in features],
            padding=self.padding,
            max_length=self.max_length,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors=self.return_tensors,
        )
        for name in ("label", "label_ids"):
            if name in batch:
                batch["labels"] = batch.pop(name)
        return batch
