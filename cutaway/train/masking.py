"""Batches for language models: places to guess in a text, or the text itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import ConfigError, InputError
from cutaway.nn.losses import IGNORED
from cutaway.tokenization.batch_encoding import BatchEncoding
from cutaway.train.collator import as_asked
from cutaway.train.label_collators import padded_labels
from cutaway.train.rng import seed_of


@dataclass
class DataCollatorForLanguageModeling:
    """Pad, and make labels: new random places to guess for each batch, or (mlm=False) the text itself.

    Of the chosen places 80 % become the mask token and 10 % a random token; 10 % stay (Devlin et al., 2019, 3.1).

    Attributes:
        tokenizer: whose `pad` is called, and whose mask token is used.
        mlm: masked (True) or causal (False) language modelling.
        whole_word_mask: choose words instead of tokens; all pieces of a word are then hidden, swapped or kept alike.
        mlm_probability: which part of the real tokens (of the words) is chosen.
        mask_replace_prob, random_replace_prob: how many chosen ones become the mask, or a random token.
        pad_to_multiple_of: round the length up to a multiple.
        seed: without one, masks come from torch's own generator; with one, from (seed, number of the batch), and a
            Trainer says which batch it is.

    Raises:
        ConfigError: a masked model's tokenizer has no mask token, or a part is not from 0 to 1.
    """

    tokenizer: Any
    mlm: bool = True
    whole_word_mask: bool = False
    mlm_probability: float = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"
    seed: int | None = None
    step: int = field(default=0, init=False)
    _continues: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.mlm and self.tokenizer.mask_token_id is None:
            raise ConfigError("this tokenizer has no mask token; for a causal language model say mlm=False.")
        for name in ("mlm_probability", "mask_replace_prob", "random_replace_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be from 0 to 1.")
        if self.mask_replace_prob + self.random_replace_prob > 1:
            raise ConfigError("mask_replace_prob and random_replace_prob add up to more than 1.")
        if self.return_tensors not in ("pt", "np"):
            raise ConfigError(f"return_tensors is {self.return_tensors!r}; it may be 'pt' or 'np'.")

    def __call__(self, features: Sequence[Any], return_tensors: str | None = None) -> BatchEncoding:
        """Rows (dicts, or lists of ids) -> input_ids, attention_mask and labels, each [rows, length].

        Without masks (mlm=False) rows that bring labels, one for each token, keep them, such as -100 for a prompt.

        Raises:
            InputError: no rows, labels that are not one for each token, or rows with labels among rows without.
        """
        if len(features) == 0:
            raise InputError("DataCollatorForLanguageModeling was given no examples; a batch needs at least one.")
        rows = [dict(f) if isinstance(f, Mapping) else {"input_ids": f} for f in features]
        own = [] if self.mlm else [labels for row in rows if (labels := _own_labels(row)) is not None]
        rows = [{k: v for k, v in row.items() if k not in ("label", "label_ids", "labels")} for row in rows]
        special = [row.pop("special_tokens_mask", None) for row in rows]
        batch: BatchEncoding = self.tokenizer.pad(
            rows, padding=True, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt"
        )
        ids: Tensor = batch["input_ids"]
        real = batch["attention_mask"].bool() if "attention_mask" in batch else ids != self.tokenizer.pad_token_id
        if self.mlm:
            batch["input_ids"], batch["labels"] = self.masked(ids, real & ~self._special(ids, real, special))
        else:
            batch["labels"] = ids.where(real, IGNORED)
            if own and len(own) < len(rows):
                raise InputError(
                    f"{len(own)} of the {len(rows)} rows of a batch have labels and the others none; give labels to "
                    "every row (a copy of input_ids where all tokens are to be learned), or to none."
                )
            if own:
                side = getattr(self.tokenizer, "padding_side", "right")
                batch["labels"] = padded_labels(own, ids.shape[1], IGNORED, side).where(real, IGNORED)
        found: BatchEncoding = as_asked(batch, return_tensors or self.return_tensors)
        return found

    def _special(self, ids: Tensor, real: Tensor, given: list[Any]) -> Tensor:
        """[rows, length]: places that are no text, by the rows' own masks or by their ids."""
        if all(mask is not None for mask in given):
            found = torch.zeros_like(real)
            found[real] = torch.cat([torch.as_tensor(mask, dtype=torch.bool) for mask in given])
            return found
        return torch.isin(ids, torch.tensor(self.tokenizer.all_special_ids))

    def _first_pieces(self, ids: Tensor, may: Tensor) -> Tensor:
        """[rows, length]: where the word of each place begins. What may not be chosen ends a word."""
        if self._continues is None:
            self._continues = continuations(self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer)))))
        before = torch.cat((torch.zeros_like(may[:, :1]), may[:, :-1]), 1)
        inside = self._continues[ids] & may & before
        steps = torch.arange(ids.shape[1]).expand_as(ids)
        return steps.where(~inside, 0).cummax(1).values

    def masked(self, ids: Tensor, may: Tensor) -> tuple[Tensor, Tensor]:
        """(ids with places hidden, labels that are -100 elsewhere), both [rows, length]; `may`: what may be chosen."""
        draw: torch.Generator | None = None
        if self.seed is not None:
            draw = torch.Generator().manual_seed(seed_of(self.seed, self.step))
            self.step += 1
        chance, what = torch.rand(ids.shape, generator=draw), torch.rand(ids.shape, generator=draw)
        if self.whole_word_mask:
            word = self._first_pieces(ids, may)
            chance, what = chance.gather(1, word), what.gather(1, word)
        chosen = (chance < self.mlm_probability) & may
        other = torch.randint(len(self.tokenizer), ids.shape, generator=draw)
        hidden = ids.where(~(chosen & (what < self.mask_replace_prob)), self.tokenizer.mask_token_id)
        swaps = chosen & (what >= self.mask_replace_prob) & (what < self.mask_replace_prob + self.random_replace_prob)
        return hidden.where(~swaps, other), ids.where(chosen, IGNORED)


def _own_labels(row: Mapping[str, Any]) -> list[int] | None:
    """A row's own labels, one for each of its tokens; None where it has none (or one for the whole text)."""
    labels = row.get("labels")
    if labels is None or not hasattr(labels, "__len__"):
        return None
    if len(labels) != len(row["input_ids"]):
        raise InputError(
            f"a row has {len(labels)} labels but {len(row['input_ids'])} tokens; give each token one (-100 for those "
            "that are not to be learned), or leave labels out: then all tokens are learned."
        )
    return labels.tolist() if hasattr(labels, "tolist") else list(labels)


@dataclass
class DataCollatorForWholeWordMask(DataCollatorForLanguageModeling):
    """`DataCollatorForLanguageModeling(whole_word_mask=True)`, under its older name."""

    whole_word_mask: bool = True


def continuations(tokens: Sequence[str | None]) -> Tensor:
    """[vocabulary] bool: which tokens go on with the word before them.

    WordPiece marks these with "##"; byte-level and sentencepiece vocabularies mark the beginnings, with the character
    that stands for a space.
    """
    if any(t is not None and t.startswith("##") for t in tokens):
        return torch.tensor([t is not None and t.startswith("##") for t in tokens])
    return torch.tensor([t is not None and not t.startswith(("\u0120", "\u2581")) for t in tokens])
