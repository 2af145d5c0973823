"""A training in which everything draws: rows, dropout, masks; stopped anywhere."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_samples import arguments, model, rows

import cutaway

NAME = "BertForMaskedLM"


class Noisy:
    """Rows that draw from every source of random numbers."""

    def __init__(self) -> None:
        self.rows = rows(NAME, 15)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = dict(self.rows[i])
        swaps = [random.randrange(1, 4), int(np.random.randint(1, 4)), int(torch.randint(1, 4, ()))]
        row["input_ids"] = row["input_ids"].clone()
        row["input_ids"][swaps] = torch.tensor([random.randrange(5, 60) for _ in swaps])
        return row


class Stop(Exception):
    """A power cut."""


class StopsAt(cutaway.TrainerCallback):
    """Stops in the middle of an update: before the weights change, after its gradients are there."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Stop


def noisy_trainer(folder: Path, stop: int | None = None, **more: Any) -> cutaway.Trainer:
    """Dropout, random rows, 15 of them in parts of 2, 3 parts an update: 8 parts and 3 updates an epoch."""
    ours = model(NAME, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.1)
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "num_train_epochs": 3, "logging_steps": 2,
        "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-3, "warmup_steps": 2,
    }  # fmt: skip
    data = more.pop("data", None) or Noisy()
    return cutaway.Trainer(
        model=ours,
        args=arguments(folder, **{**settings, **more}),
        train_dataset=data,
        eval_dataset=rows(NAME, 4),
        callbacks=[] if stop is None else [StopsAt(stop)],
    )


def told(trainer: cutaway.Trainer) -> list[dict[str, Any]]:
    """What was logged, without times."""
    return [
        {k: v for k, v in entry.items() if "runtime" not in k and "per_second" not in k}
        for entry in trainer.state.log_history
    ]
