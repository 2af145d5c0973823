"""One call of train after another."""

from __future__ import annotations

from pathlib import Path

import torch
from training_samples import arguments, model, rows

import cutaway


def test_a_second_training_makes_its_own_optimizer_where_the_first_did(tmp_path: Path) -> None:
    name = "BertForSequenceClassification"
    settings = {"learning_rates": {"classifier": 1e-3}, "num_train_epochs": 1}
    trainer = cutaway.Trainer(model(name), arguments(tmp_path, **settings), train_dataset=rows(name))
    trainer.train()
    first = trainer.optimizer
    trainer.train()
    assert trainer.optimizer is not first
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {group["lr"] for group in first.param_groups}


def test_an_optimizer_that_was_given_stays(tmp_path: Path) -> None:
    name = "BertForSequenceClassification"
    a_model = model(name)
    optimizer = torch.optim.SGD(a_model.parameters(), 1e-3)
    trainer = cutaway.Trainer(
        a_model, arguments(tmp_path, num_train_epochs=1), train_dataset=rows(name), optimizers=(optimizer, None)
    )
    for _ in range(2):
        trainer.train()
        assert trainer.optimizer is optimizer
