"""The evaluator and the update's loss by themselves: they know a session and hooks, and no trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_samples import arguments, model, rows

import cutaway
from cutaway.errors import ConfigError
from cutaway.train.evaluator import Evaluator
from cutaway.train.loop import num_items

NAME = "BertForSequenceClassification"
TEXTS = [{"input_ids": [5 + i, 6, 7, 1], "attention_mask": [1, 1, 1, 1], "labels": [8, 9 + i, 1]} for i in range(6)]


def test_written_texts_go_through_the_preprocessing_once(tmp_path: Path) -> None:
    shown: list[torch.Tensor] = []

    def shifted(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        shown.append(ids)
        return ids + 1000

    kept: dict[str, Any] = {}

    def measure(answers: Any) -> dict[str, float]:
        kept["ids"] = answers.predictions
        return {"rows": float(len(answers.predictions))}

    args = cutaway.Seq2SeqTrainingArguments(
        str(tmp_path), predict_with_generate=True, generation_max_length=6, use_cpu=True, disable_tqdm=True,
        per_device_eval_batch_size=3,
    )  # fmt: skip
    trainer = cutaway.Seq2SeqTrainer(
        model("T5ForConditionalGeneration"), args, eval_dataset=TEXTS, compute_metrics=measure,
        preprocess_logits_for_metrics=shifted,
    )  # fmt: skip
    assert trainer.evaluate()["eval_rows"] == 6
    assert len(shown) == 2  # batches
    assert (kept["ids"] == torch.cat(shown).numpy() + 1000).all()


def test_an_evaluator_needs_the_hooks_alone(tmp_path: Path) -> None:
    """Anything that has upstream's hooks is evaluated."""
    trainer = cutaway.Trainer(model(NAME), arguments(tmp_path), eval_dataset=rows(NAME))

    class Hooks:
        """The trainer's hooks, without the trainer's class."""

        def __getattr__(self, name: str) -> Any:
            return getattr(trainer, name)

    evaluator = Evaluator(trainer.session, Hooks())  # type: ignore[arg-type]
    metrics = evaluator.evaluate(None, None, "eval")
    expected = trainer.evaluate()
    assert metrics["eval_loss"] == expected["eval_loss"]


def test_hooks_of_a_running_training_say_that_none_runs(tmp_path: Path) -> None:
    trainer = cutaway.Trainer(model(NAME), arguments(tmp_path), train_dataset=rows(NAME))
    with pytest.raises(ConfigError, match="nothing is being trained"):
        trainer._determine_best_metric({"eval_loss": 1.0}, None)


def test_an_optimizer_that_was_not_made_is_an_error(tmp_path: Path) -> None:
    class Forgets(cutaway.Trainer):
        def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
            """Makes nothing."""

    with pytest.raises(ConfigError, match=r"must set trainer\.optimizer"):
        Forgets(model(NAME), arguments(tmp_path), train_dataset=rows(NAME)).train()


@pytest.mark.parametrize("n", [0.0, 3.0, 2.5])
def test_item_counts_have_upstreams_types(n: float) -> None:
    count = num_items(n)
    assert float(count) == n
    assert isinstance(count, int) == n.is_integer() and (n.is_integer() or isinstance(count, torch.Tensor))


def test_a_config_says_what_is_not_kept(tmp_path: Path) -> None:
    name = "BertForQuestionAnswering"
    trainer = cutaway.Trainer(model(name), arguments(tmp_path))
    starts, ends = trainer.predict(rows(name)).predictions
    trainer.model.config.keys_to_ignore_at_inference = ["end_logits"]
    assert (trainer.predict(rows(name)).predictions == starts).all()
    assert (trainer.predict(rows(name), ignore_keys=["start_logits"]).predictions == ends).all()
    assert cutaway.BertConfig().keys_to_ignore_at_inference == []
