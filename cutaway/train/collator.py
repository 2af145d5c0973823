"""From a list of encoded examples to one padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cutaway.errors import ConfigError, InputError
from cutaway.tokenization.batch_encoding import BatchEncoding
from cutaway.tokenization.protocols import PaddingTokenizer


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

    tokenizer: PaddingTokenizer
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> BatchEncoding:
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
            return_tensors=return_tensors or self.return_tensors,
        )
        for name in ("label", "label_ids"):
            if name in batch:
                batch["labels"] = batch.pop(name)
        return batch


def default_data_collator(features: Sequence[Mapping[str, Any]], return_tensors: str = "pt") -> dict[str, Any]:
    """Stack examples that already have one length; `label` and `label_ids` become `labels`, text is left out.

    Raises:
        InputError: no examples, or lists of different lengths.
    """
    import numpy as np
    import torch

    if len(features) == 0:
        raise InputError("default_data_collator was given no examples; a batch needs at least one.")
    batch: dict[str, Any] = {}
    for name, first in features[0].items():
        if first is None or isinstance(first, str):
            continue
        values = [f[name] for f in features]
        try:
            stacked = torch.stack(values) if isinstance(first, torch.Tensor) else torch.as_tensor(np.asarray(values))
        except (RuntimeError, ValueError, TypeError) as e:
            raise InputError(
                f"the examples of a batch differ in the shape of {name!r}; give Trainer the tokenizer, which pads them "
                f"(processing_class=...), or a data_collator. ({e})"
            ) from None
        batch["labels" if name in ("label", "label_ids") else name] = (
            stacked.float() if stacked.dtype == torch.float64 else stacked
        )
    found: dict[str, Any] = as_asked(batch, return_tensors)
    return found


def as_asked(batch: Any, return_tensors: str) -> Any:
    """A batch of tensors, or ("np") of NumPy's arrays; ConfigError for any other form."""
    if return_tensors == "pt":
        return batch
    if return_tensors != "np":
        raise ConfigError(f"return_tensors is {return_tensors!r}; it may be 'pt' or 'np'.")
    for name, value in batch.items():
        if hasattr(value, "numpy"):
            batch[name] = value.numpy()
    return batch


@dataclass
class DefaultDataCollator:
    """`default_data_collator` as an object, with its `return_tensors`."""

    return_tensors: str = "pt"

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> dict[str, Any]:
        """Examples of one length -> a batch; InputError as `default_data_collator`."""
        return default_data_collator(features, return_tensors or self.return_tensors)


class DataCollatorMixin:
    """Base of a collator of one's own: it writes `torch_call` (and `numpy_call`), and is called with the features."""

    return_tensors: str = "pt"

    def __call__(self, features: Sequence[Any], return_tensors: str | None = None) -> Any:
        """The batch by `torch_call`, or by `numpy_call` for "np"."""
        asked = return_tensors or self.return_tensors
        if asked not in ("pt", "np"):
            raise ConfigError(f"return_tensors is {asked!r}; it may be 'pt' or 'np'.")
        made = getattr(self, "torch_call" if asked == "pt" else "numpy_call", None)
        if made is None:
            raise ConfigError(f"{type(self).__name__} has no {'torch_call' if asked == 'pt' else 'numpy_call'}.")
        return made(features)
