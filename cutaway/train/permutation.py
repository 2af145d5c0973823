"""Batches for permutation language models (Yang et al., 2019, arXiv:1906.08237)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.nn.losses import IGNORED
from cutaway.train.collator import as_asked


@dataclass
class DataCollatorForPermutationLanguageModeling:
    """Hide spans of each text, and say in which order its hidden tokens are read.

    A span has 1 to `max_span_length` tokens, somewhere in a stretch of its own that is 1 / `plm_probability` as long.

    Attributes:
        tokenizer: whose `pad` is called, and whose mask token is used.
        plm_probability: which part of the tokens is hidden.
        max_span_length: of the longest span.
        return_tensors: "pt" or "np".

    Raises:
        ConfigError: the tokenizer has no mask token.
    """

    tokenizer: Any
    plm_probability: float = 1 / 6
    max_span_length: int = 5
    return_tensors: str = "pt"

    def __post_init__(self) -> None:
        if self.tokenizer.mask_token_id is None:
            raise ConfigError("this tokenizer has no mask token, which hides the spans.")

    def __call__(self, features: Sequence[Any], return_tensors: str | None = None) -> dict[str, Any]:
        """Rows (dicts, or lists of ids) of an even length L -> input_ids, labels [B, L], perm_mask, target_mapping.

        perm_mask [B, L, L] is 1 where token i may not see token j; target_mapping [B, L, L] says which token each
        prediction is of.

        Raises:
            InputError: no rows, or an odd length.
        """
        if len(features) == 0:
            raise InputError("DataCollatorForPermutationLanguageModeling was given no examples.")
        rows = [{"input_ids": f["input_ids"] if isinstance(f, Mapping) else f} for f in features]
        ids: Tensor = self.tokenizer.pad(rows, padding=True, return_tensors="pt")["input_ids"]
        names = ("input_ids", "perm_mask", "target_mapping", "labels")
        batch = dict(zip(names, self.torch_mask_tokens(ids), strict=True))
        return as_asked(batch, return_tensors or self.return_tensors)  # type: ignore[no-any-return]

    def torch_mask_tokens(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(ids with spans hidden, perm_mask, target_mapping, labels) of ids [B, L]."""
        batch, length = inputs.shape
        if length % 2:
            raise InputError(f"the texts have {length} tokens; an even number is needed: pad_to_multiple_of=2.")
        ids, labels = inputs.clone(), inputs.clone()
        hidden = torch.zeros(batch, length, dtype=torch.bool)
        for row in hidden:
            self._hide(row)
        special = torch.isin(labels, torch.tensor(self.tokenizer.all_special_ids))
        hidden &= ~special
        ids[hidden] = self.tokenizer.mask_token_id
        labels[~hidden] = IGNORED
        perm_mask = torch.stack([self._order(h, s) for h, s in zip(hidden, special, strict=True)])
        target_mapping = torch.eye(length).expand(batch, length, length).clone()
        return ids.long(), perm_mask, target_mapping, labels.long()

    def _hide(self, row: Tensor) -> None:
        """Choose the spans of one text, in place."""
        at = 0
        while at < len(row):
            span = int(torch.randint(1, self.max_span_length + 1, (1,)))
            stretch = int(span / self.plm_probability)
            first = at + int(torch.randint(stretch - span + 1, (1,)))
            row[first : first + span] = True
            at += stretch

    def _order(self, hidden: Tensor, special: Tensor) -> Tensor:
        """perm_mask [L, L] of one text: its two halves are read in one random order, each for itself."""
        length = len(hidden)
        drawn = torch.randperm(length // 2)
        order = torch.arange(length).view(2, length // 2)[:, drawn].flatten()
        order = order.masked_fill(~hidden & ~special, -1)  # what is shown is seen from everywhere
        return ((order[:, None] <= order[None]) & hidden).float()
