"""A course of training on cutaway's `Trainer`: batches that a recipe has cut, its own groups of weights and rates."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from batches import rate, shuffled
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

import cutaway


class Lessons(cutaway.TrainerCallback):
    """The batches of the running epoch as a data set whose rows are batches; as a callback, it goes on to the next.

    Args:
        examples: the examples of an epoch, anything with `ids`. Every epoch must have as many batches as the first.
        size: of a batch. seed: of the order, with the number of the epoch added.
    """

    def __init__(self, examples: Callable[[int], Sequence[Any]], size: int, seed: int) -> None:
        self._all, self._size, self._seed = examples, size, seed
        self._epoch = -1
        self._go_to(0)

    def _go_to(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        examples = self._all(epoch)
        batches = shuffled([len(one.ids) for one in examples], self._size, random.Random(self._seed + epoch))
        if self._epoch >= 0 and len(batches) != len(self._batches):
            raise ValueError(f"epoch {epoch} has {len(batches)} batches, epoch {self._epoch} {len(self._batches)}.")
        self._epoch, self._examples, self._batches = epoch, examples, batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Reads the examples of this epoch."""
        self._go_to(round(state.epoch))

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> list[Any]:
        return [self._examples[place] for place in self._batches[number]]


def train(
    model: nn.Module,
    groups: list[dict[str, Any]],
    lessons: Lessons,
    collate: Callable[[list[Any]], dict[str, Tensor]],
    folder: Path,
    *,
    epochs: int,
    scheduled: int,
    warm: float,
    eps: float,
    seed: int,
    callbacks: Sequence[cutaway.TrainerCallback] = (),
) -> None:
    """Trains `model` in place, from where `folder` says an earlier run stopped, which is after each epoch.

    Args:
        model: gives {"loss": the mean over the rows of a batch}.
        groups: weights with their highest rates, for AdamW.
        collate: examples -> what the model takes.
        epochs: how many to train, of a schedule over `scheduled`. warm: the share of it in which the rate rises.
        eps: of AdamW.
    """
    steps = scheduled * len(lessons)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=eps, weight_decay=0.01, fused=True)
    arguments = cutaway.TrainingArguments(
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=1,  # a row is a batch
        train_sampling_strategy="sequential",
        bf16=True,
        use_cpu=True,
        seed=seed,
        save_strategy="epoch",
        save_total_limit=1,
        logging_strategy="epoch",
        disable_tqdm=True,
    )
    trainer = cutaway.Trainer(
        model,
        arguments,
        data_collator=lambda rows: collate(rows[0]),
        train_dataset=lessons,
        callbacks=[lessons, *callbacks],
        optimizers=(optimizer, LambdaLR(optimizer, lambda step: rate(step + 1, steps, warm))),
    )
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))


def newest(folder: Path) -> Path:
    """The checkpoint that the last epoch left in the folder of a course."""
    return max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.removeprefix("checkpoint-")))
