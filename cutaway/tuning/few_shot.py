"""A classifier from few labelled texts: its encoder learns from pairs of them, its head is a logistic regression.

The two stages of SetFit (Tunstall et al., 2022, arXiv:2209.11055). Few rows make many pairs, and a pair says whether
two texts have the same label; so the encoder learns from about rows^2 / 2 answers where a head on top has one a row.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from cutaway import auto
from cutaway.errors import ConfigError, InputError, counted
from cutaway.models.label_heads import SequenceClassification
from cutaway.models.text_vector import FIELD
from cutaway.train.arguments import TrainingArguments
from cutaway.tuning.sentence_trainer import LABEL, TEXTS, SentenceTrainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cutaway.config.config import PretrainedConfig
    from cutaway.models.pretrained import PreTrainedModel
    from cutaway.tokenization.protocols import PaddingTokenizer

LEAST = 4  # rows of a batch: two of each of two labels
AT_ONCE = 64  # texts of one pass of the encoder


def few_shot_settings(rows: int) -> dict[str, Any]:
    """The TrainingArguments for so many rows, where nothing else is asked for: steps grow as the root of the rows."""
    return {
        "max_steps": round(5 * math.sqrt(rows)),
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-4,
        "warmup_ratio": 0.1,
    }


@dataclass(frozen=True)
class SameLabelLoss:
    """The cosine of two texts shall be 1 where their labels are the same, and 0 where they are not.

    The squared error over all pairs of a batch; pairs of the same label weigh as much together as all others do. It is
    `CosineSimilarityLoss` on every pair that the batch holds, where each text is encoded once.
    """

    def __call__(self, vectors: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """One column of vectors [rows, width] and the rows' classes [rows] -> the mean loss."""
        if len(vectors) != 1 or labels is None:
            raise InputError("SameLabelLoss compares the texts of one column by their labels.")
        unit = F.normalize(vectors[0], dim=-1)
        same = labels[:, None] == labels[None, :]  # [rows, rows]
        each = (unit @ unit.T - same.to(unit.dtype)).square()
        once = torch.ones_like(same).triu(1)  # no text with itself
        kinds = [each[once & kind] for kind in (same, ~same)]
        return torch.stack([kind.mean() for kind in kinds if kind.numel()]).mean()


class BalancedBatches(Sampler[list[int]]):
    """Batches in which each label has as many rows as any other, at least two where it has them.

    Args:
        labels: of each row. size: rows of a batch, at most. seed: of the draws, with the epoch.

    An epoch has as many batches as there are rows for. A label with few rows comes round more often; no row stands
    twice in a batch.
    """

    def __init__(self, labels: Sequence[int], size: int, seed: int) -> None:
        self.groups: dict[int, list[int]] = {}
        for row, label in enumerate(labels):
            self.groups.setdefault(label, []).append(row)
        check_size(size)
        self.labels_at_once = min(len(self.groups), size // 2)
        self.each = size // self.labels_at_once
        self.seed, self.epoch, self.rows, self.size = seed, 0, len(labels), size

    def __len__(self) -> int:
        return math.ceil(self.rows / self.size)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch is drawn next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        draw = random.Random(f"{self.seed} {self.epoch}")
        labels = _Rounds(sorted(self.groups), draw)
        rows = {label: _Rounds(own, draw) for label, own in sorted(self.groups.items())}
        for _ in range(len(self)):
            yield [row for label in labels.take(self.labels_at_once) for row in rows[label].take(self.each)]


def check_size(size: int) -> None:
    """Raises ConfigError for batches that hold no pairs of two labels."""
    if size < LEAST:
        raise ConfigError(f"a batch of {size} holds no pairs of two labels; give {LEAST} rows or more.")


class _Rounds:
    """Things in an order that is drawn anew when all have had their turn."""

    def __init__(self, things: Sequence[int], draw: random.Random) -> None:
        self.things, self.draw = list(things), draw
        self.left: list[int] = []

    def take(self, n: int) -> list[int]:
        """The next n, or all where there are fewer; none twice."""
        taken: list[int] = []
        while len(taken) < min(n, len(self.things)):
            if not self.left:
                self.left = [thing for thing in self.things if thing not in taken]
                self.draw.shuffle(self.left)
            taken.append(self.left.pop())
        return taken


class _AsList(Dataset[Mapping[str, object]]):
    def __init__(self, rows: Sequence[Mapping[str, object]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Mapping[str, object]:
        return self.rows[place]


class FewShotTrainer(SentenceTrainer):
    """Trains an encoder so that texts of one label lie near one another; `classifier` then puts a head on it.

    Rows hold "texts", a list with the token ids of the one text, and "label", the number of its class.

    Args:
        model: a base model (`AutoModel`). pooling: "mean", "cls", "lasttoken" or "max".
        normalize: whether the head reads vectors of length 1.
        more: as of `SentenceTrainer`, but for the loss.

    Raises:
        InputError: one class only, or a class with a single row.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        *,
        train_dataset: Sequence[Mapping[str, Any]],
        pooling: str = "mean",
        normalize: bool = True,
        processing_class: PaddingTokenizer | None = None,
        callbacks: Sequence[object] | None = None,
    ) -> None:
        check_classes([row[LABEL] for row in train_dataset])
        self.few_rows, self.normalize = list(train_dataset), normalize
        super().__init__(
            model, args, None, self.few_rows, None, processing_class,
            loss=SameLabelLoss(), pooling=pooling, callbacks=callbacks,
        )  # fmt: skip

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches with the same number of rows of each label."""
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        batches = BalancedBatches([int(row[LABEL]) for row in self.few_rows], args.train_batch_size, seed)
        return DataLoader(_AsList(self.few_rows), batch_sampler=batches, collate_fn=self.data_collator)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """The vectors of the rows' texts as the head reads them, [rows, width]."""
        order = sorted(range(len(rows)), key=lambda place: len(rows[place][TEXTS][0]))
        parts = []
        self.model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            for at in range(0, len(order), AT_ONCE):
                batch = self._prepare_inputs(
                    dict(self.data_collator([rows[place] for place in order[at : at + AT_ONCE]]))
                )
                (vectors,) = self.vectors(self.model, batch)
                parts.append(F.normalize(vectors, dim=-1) if self.normalize else vectors)
        found = torch.cat(parts).double().cpu().numpy()  # [rows, width]
        back = np.empty_like(found)
        back[order] = found
        return back

    def classifier(self, names: Sequence[str]) -> PreTrainedModel:
        """The encoder under a head that logistic regression has found on the rows' vectors, as a model of its own.

        It is the family's `...ForSequenceClassification`; its config says which vector the head reads (`text_vector`).

        Args:
            names: of the classes, by their numbers.

        Raises:
            InputError: the family has no classifier that reads a vector. MissingExtraError: scikit-learn is not there.
        """
        weight, bias = logistic_head(self.encode(self.few_rows), [int(row[LABEL]) for row in self.few_rows], len(names))
        encoder = cast("PreTrainedModel", self.model)
        id2label = dict(enumerate(names))
        config = type(encoder.config).from_dict(
            {
                **encoder.config.to_dict(),
                "id2label": id2label,
                "label2id": {name: i for i, name in id2label.items()},
                "problem_type": "single_label_classification",
                FIELD: {"pooling": self.pooling, "normalize": self.normalize},
            }
        )
        model = classifier_of(config)
        model.base.load_state_dict(encoder.state_dict())
        out = cast("nn.Linear", model.get_submodule(model.head_spec.out))
        with torch.no_grad():
            out.weight.copy_(torch.as_tensor(weight))
            out.bias.copy_(torch.as_tensor(bias))
        return model.to(self.args.device).eval()


def classifier_of(config: PretrainedConfig) -> SequenceClassification:
    """A fresh classifier; InputError where its head cannot read a vector of the text."""
    model = auto.AutoModelForSequenceClassification.from_config(config)
    if not isinstance(model, SequenceClassification):
        raise InputError(
            f"{type(model).__name__} reads a text by encoder and decoder; few labels are learned by an encoder, such "
            "as cutaway/minilm."
        )
    return model


def check_classes(labels: Sequence[object], names: Sequence[str] = ()) -> None:
    """Raises InputError where no pairs of both kinds can be made: one class, or a class with one row."""
    counts = Counter(labels)
    if len(counts) < 2:
        raise InputError(f"{counted(len(labels), 'row')} of one label: there is nothing to tell apart.")
    lonely = [label for label, n in counts.items() if n < 2]
    if lonely:
        said = ", ".join(repr(names[one] if names and isinstance(one, int) else one) for one in lonely[:5])
        raise InputError(
            f"only one row to train on has the label {said}; pairs of one label need two. Give more rows, or a table "
            "of its own to validate with."
        )


def logistic_head(
    vectors: NDArray[np.float64], labels: Sequence[int], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(weight [classes, width], bias [classes]) whose softmax is the logistic regression of scikit-learn, C = 1.

    Of two classes the regression has one line of weights; half of it with each sign has the same softmax.
    """
    from cutaway.evaluate.scoring import library

    regression = library("sklearn.linear_model").LogisticRegression(C=1.0, max_iter=1000)
    regression.fit(vectors, np.asarray(labels))
    weight, bias = regression.coef_, regression.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate((-weight, weight)) / 2, np.concatenate((-bias, bias)) / 2
    whole, offsets = np.zeros((classes, weight.shape[1])), np.full(classes, -1e4)  # a class without a row is never said
    whole[regression.classes_], offsets[regression.classes_] = weight, bias
    return whole, offsets
