"""A Trainer for rerankers: rows are queries with all their documents, compared with one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cutaway.errors import InputError
from cutaway.tokenization.protocols import PaddingTokenizer
from cutaway.train.arguments import TrainingArguments
from cutaway.train.evaluation import EvalPrediction
from cutaway.train.trainer import Trainer
from cutaway.tuning.ranking_measures import of_groups

PAIRS = "pairs"  # of a row: the token ids, and what goes with them, of the query with each of its documents
RIGHT = "right"  # of a row: how good an answer each document is, from 0 to 1
MANY_UPDATES = 200
SURENESS = 0.2  # what binary cross-entropy counts beside the order: enough to keep a score of 0 the border, no more
PAIRS_AT_ONCE = 64  # of a pass, about: queries with many documents are taken fewer at a time


def ranking_settings(queries: int, documents: int) -> dict[str, Any]:
    """The TrainingArguments for so many queries with so many documents in all, where nothing else is asked for.

    A head that begins anew needs about 75 updates before it ranks anything, so few queries are gone through more often.
    """
    size = max(1, min(8, PAIRS_AT_ONCE * queries // max(documents, 1)))
    return {
        "num_train_epochs": float(min(8, max(2, round(MANY_UPDATES * size / max(queries, 1))))),
        "per_device_train_batch_size": size,
        "learning_rate": 1e-4,
        "warmup_ratio": 0.1,
        # the loss rises while scores grow surer and the order still gets better
        "metric_for_best_model": "mrr_at_10",
    }


def ranking_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """MRR@10 and NDCG@10 of what a `RankingTrainer` predicted; nothing where no query has a right and a wrong one."""
    sizes, right = prediction.label_ids  # [queries], [pairs]
    scores = np.asarray(prediction.predictions, dtype=np.float64)  # [pairs]
    ends = np.cumsum(sizes.astype(np.int64))[:-1]
    measured = of_groups(np.split(scores, ends), np.split(right.astype(np.float64), ends))
    return {name: float(values.mean()) for name, values in measured.items() if len(values)}


def ranking_loss(scores: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """The mean loss of queries, from the scores and the labels [documents] of each.

    A query's loss is the cross-entropy of the softmax over its documents, which learns their order (ListNet: Cao et
    al., 2007), and `SURENESS` times the mean binary cross-entropy of each, by which a score above 0 is an answer. A
    query whose documents are all equally good has no order, and only the second.
    """
    losses = []
    for own, labels in zip(scores, right, strict=True):
        loss = SURENESS * F.binary_cross_entropy_with_logits(own, labels)
        if bool(labels.max() > labels.min()):
            loss = loss + F.cross_entropy(own, labels / labels.sum())
        losses.append(loss)
    return torch.stack(losses).mean()


@dataclass
class DataCollatorForRanking:
    """Queries with their documents as one batch of pairs, those of one query one after another."""

    tokenizer: PaddingTokenizer

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Rows {"pairs": [{"input_ids": ...}, ...], "right": [...]} -> the padded pairs with their labels.

        The labels are `right` [pairs]; `labels` [queries] says how many documents each query has, so that a batch says
        how many queries it holds.

        Raises:
            InputError: no rows.
        """
        if not features:
            raise InputError("there are no rows; a batch needs at least one query.")
        batch: dict[str, Any] = dict(
            self.tokenizer.pad([pair for row in features for pair in row[PAIRS]], padding=True, return_tensors="pt")
        )
        right = torch.tensor([float(label) for row in features for label in row[RIGHT]])  # [pairs]
        return batch | {RIGHT: right, "labels": torch.tensor([float(len(row[RIGHT])) for row in features])}


class RankingTrainer(Trainer):
    """`Trainer` for models that give one score of a query with a document (`num_labels` is 1); `ranking_loss`.

    Rows hold "pairs", a list with the token ids (and masks, types) of the query with each document, and "right", as
    many numbers from 0 to 1. An evaluation gives the loss, MRR@10 and NDCG@10; `compute_metrics` is given the scores
    [pairs] as predictions, and as label_ids how many pairs each query has [queries] and their labels [pairs].
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
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = ranking_metrics,
        callbacks: Sequence[object] | None = None,
        optimizers: tuple[Optimizer | None, LRScheduler | None] = (None, None),
    ) -> None:
        if data_collator is None and processing_class is not None:
            data_collator = DataCollatorForRanking(processing_class)
        super().__init__(
            model, args, data_collator, train_dataset, eval_dataset, processing_class,
            compute_metrics=compute_metrics, callbacks=callbacks, optimizers=optimizers,
        )  # fmt: skip
        self.label_names = ["labels", RIGHT]

    def _set_signature_columns_if_needed(self) -> None:
        """The rows' columns are not the model's."""
        self._signature_columns = [PAIRS, RIGHT]

    def scores(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Tensor]:
        """The scores [documents] of each query of a batch."""
        inputs = {name: value for name, value in inputs.items() if name != RIGHT}
        counts = [int(n) for n in inputs.pop("labels").tolist()]
        return list(model(**inputs)[0][:, 0].float().split(counts))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of the queries, or their share of an update's."""
        scores = self.scores(model, inputs)
        loss = ranking_loss(scores, inputs[RIGHT].split([len(own) for own in scores]))
        if num_items_in_batch is not None:
            loss = loss * len(scores) / num_items_in_batch
        return (loss, {"logits": torch.cat(scores)}) if return_outputs else loss
