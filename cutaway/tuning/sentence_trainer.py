"""A Trainer for models that make one vector of a text, from rows of several texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cutaway.errors import ConfigError, InputError
from cutaway.models.text_vector import POOLINGS, pooled
from cutaway.tokenization.protocols import PaddingTokenizer
from cutaway.train.arguments import TrainingArguments
from cutaway.train.sentence_losses import SentenceLoss
from cutaway.train.trainer import Trainer

TRAINED_POOLINGS = POOLINGS
TEXTS = "texts"  # of a row: the ids of each of its texts, in the order of the columns
LABEL = "label"


@dataclass
class DataCollatorForSentences:
    """Rows of several texts as one batch: all first texts, then all second ones, ...

    The labels are those of the rows, as numbers; rows without get 0, so that a batch says how many rows it holds.
    """

    tokenizer: PaddingTokenizer

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Rows {"texts": [ids, ids, ...], "label": number} -> input_ids, attention_mask, labels [rows].

        Raises:
            InputError: no rows, or rows that differ in how many texts they have.
        """
        counts = {len(row[TEXTS]) for row in features}
        if len(counts) != 1:
            raise InputError(f"the rows of a batch have {sorted(counts)} texts; give each the same number.")
        flat = [{"input_ids": row[TEXTS][i]} for i in range(counts.pop()) for row in features]
        batch: dict[str, Any] = dict(self.tokenizer.pad(flat, padding=True, return_tensors="pt"))
        return batch | {"labels": torch.tensor([float(row.get(LABEL, 0.0)) for row in features])}


class SentenceTrainer(Trainer):
    """`Trainer` for vectors of texts: `loss` compares the pooled vectors of a row's texts.

    Rows hold "texts", a list of token ids for each text, and where the loss needs it "label".

    Args:
        loss: of `cutaway.train.sentence_losses`, or any function of (vectors, labels).
        pooling: "mean", "cls", "lasttoken" or "max".
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: object = None,
        eval_dataset: object = None,
        processing_class: PaddingTokenizer | None = None,
        *,
        loss: SentenceLoss,
        pooling: str = "mean",
        callbacks: Sequence[object] | None = None,
        optimizers: tuple[Optimizer | None, LRScheduler | None] = (None, None),
    ) -> None:
        if pooling not in TRAINED_POOLINGS:
            raise ConfigError(f"pooling is {pooling!r}; vectors are trained with {', '.join(TRAINED_POOLINGS)}.")
        self.loss, self.pooling = loss, pooling
        if data_collator is None and processing_class is not None:
            data_collator = DataCollatorForSentences(processing_class)
        super().__init__(
            model, args, data_collator, train_dataset, eval_dataset, processing_class,
            callbacks=callbacks, optimizers=optimizers,
        )  # fmt: skip

    def _set_signature_columns_if_needed(self) -> None:
        """The rows' columns are not the model's."""
        self._signature_columns = [TEXTS, LABEL]

    def vectors(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Tensor]:
        """The vectors [rows, hidden] of each column of a batch."""
        inputs = dict(inputs)
        rows = len(inputs.pop("labels"))
        hidden = model(**inputs)[0]
        return list(pooled(hidden.float(), inputs["attention_mask"], self.pooling).split(rows))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of the rows, or their share of an update's."""
        labels = inputs["labels"]
        vectors = self.vectors(model, inputs)
        loss = self.loss(vectors, labels)
        if num_items_in_batch is not None:
            loss = loss * len(labels) / num_items_in_batch
        return (loss, {"vectors": torch.stack(vectors, 1)}) if return_outputs else loss
