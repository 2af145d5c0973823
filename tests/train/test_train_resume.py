"""A training that was stopped anywhere goes on to the same bits."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from noisy_training import Noisy, Stop, noisy_trainer, told
from training_samples import furthest, weights

import cutaway


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2},
        {"dataloader_num_workers": 2, "save_steps": 4},
        {"optim": "sgd", "lr_scheduler_type": "cosine"},
        {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True},
        {"group_by_length": True, "ema_decay": 0.9, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2},
        {"per_device_train_batch_tokens": 20, "max_steps": 9, "optim": "adafactor", "layer_lr_decay": 0.9},
        {"bf16": True, "gradient_checkpointing": True, "freeze": ["embed"], "optim": "rmsprop"},
    ],
    ids=["steps", "evaluated", "workers", "sgd", "epochs", "by-length", "packed", "half"],
)
def test_resumed_is_uninterrupted_bit_by_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    whole = noisy_trainer(tmp_path / "whole", **settings)
    whole.train()
    assert whole.state.global_step == 9
    few = settings.keys() & {"dataloader_num_workers", "group_by_length", "per_device_train_batch_tokens", "bf16"}
    for stop in (5,) if few else (4, 7):
        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(Stop):
            noisy_trainer(folder, stop, **settings).train()
        random.seed(stop)  # whatever the next process begins with
        torch.manual_seed(stop)
        again = noisy_trainer(folder, **settings)
        again.train(resume_from_checkpoint=True)
        assert furthest(weights(whole.model), weights(again.model)) == 0.0
        assert told(again) == told(whole)
        assert again.state.best_metric == whole.state.best_metric


@pytest.mark.parametrize("plan", [{}, {"group_by_length": True}, {"per_device_train_batch_tokens": 20}])
def test_workers_make_the_same_batches(plan: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for workers in (0, 2):
        trainer = noisy_trainer(
            tmp_path / str(workers), dataloader_num_workers=workers, max_steps=3, save_strategy="no", **plan
        )
        trainer.train()
        found.append(weights(trainer.model))
    assert furthest(*found) == 0.0


def test_streams_and_early_stopping_resume(tmp_path: Path) -> None:
    def stream() -> Any:
        source = Noisy()
        while True:
            yield source[random.randrange(len(source))]

    def make(folder: Path, stop: int | None = None) -> cutaway.Trainer:
        trainer = noisy_trainer(
            folder, stop, data=stream, max_steps=7, eval_strategy="steps", eval_steps=1, metric_for_best_model="loss",
            greater_is_better=True,
        )  # fmt: skip
        trainer.add_callback(cutaway.EarlyStoppingCallback(3, early_stopping_threshold=0.01))
        return trainer

    whole = make(tmp_path / "whole")
    whole.train()
    assert whole.state.global_step >= 3
    with pytest.raises(Stop):
        make(tmp_path / "cut", stop=2).train()
    again = make(tmp_path / "cut")
    again.train(resume_from_checkpoint=True)
    assert told(again) == told(whole)
    assert furthest(weights(whole.model), weights(again.model)) == 0.0


def test_every_step_of_an_accumulating_training_resumes(tmp_path: Path) -> None:
    whole = noisy_trainer(tmp_path, ema_decay=0.5)
    whole.train()
    wanted = weights(whole.model)
    for step in range(1, 9):
        again = noisy_trainer(tmp_path, ema_decay=0.5, save_strategy="no")
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert furthest(weights(again.model), wanted) == 0.0


def test_masks_of_a_seeded_collator_resume(tmp_path: Path) -> None:
    class Tokens:
        mask_token_id, pad_token_id, all_special_ids = 4, 0, [0, 1, 2, 3, 4]

        def __len__(self) -> int:
            return 60

        def pad(self, rows: list[Any], **_: Any) -> dict[str, torch.Tensor]:
            return {k: torch.stack([r[k] for r in rows]) for k in rows[0]}

    def make(stop: int | None = None) -> cutaway.Trainer:
        trainer = noisy_trainer(tmp_path / "cut", stop)
        trainer.data_collator = cutaway.DataCollatorForLanguageModeling(Tokens(), mlm_probability=0.5, seed=3)
        return trainer

    whole = make()
    whole.args.output_dir = str(tmp_path / "whole")
    whole.train()
    with pytest.raises(Stop):
        make(stop=4).train()
    again = make()
    again.train(resume_from_checkpoint=str(tmp_path / "cut"))
    assert furthest(weights(whole.model), weights(again.model)) == 0.0
