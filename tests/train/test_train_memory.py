"""What a training does not do: hold on to what was evaluated, or work more the longer it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_samples import arguments, model, rows

import cutaway
from cutaway.train import evaluation

NAME = "BertForSequenceClassification"
# The vocabulary is BERT's: kept logits would be 2.5 GB, and those of one batch alone are 0.5.
# What 1,000 texts add is in docs/log.md; it is no more.
EVALUATION = """
import resource, sys
import torch, cutaway

torch.set_num_threads(1)
vocabulary, count = 30522, 40
config = cutaway.BertConfig(
    vocab_size=vocabulary, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
    max_position_embeddings=512,
)
ids = torch.randint(5, vocabulary, (count, 512))
labels = ids.masked_fill(torch.rand(count, 512) > 0.15, -100)
rows = [{"input_ids": i, "labels": l} for i, l in zip(ids, labels)]
seen = 0


def ordinary(prediction):
    best, truth = prediction
    return {"accuracy": (best == truth)[truth != -100].mean(), "seen": len(best)}


def streamed(prediction, compute_result):
    global seen
    seen += len(prediction.label_ids)
    assert prediction.predictions.shape[1:] == (512, vocabulary)
    return {"seen": seen} if compute_result else {}


held = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = None
for given in (
    {},
    {"compute_metrics": ordinary, "preprocess_logits_for_metrics": lambda logits, _: logits.argmax(-1)},
    {"compute_metrics": streamed},
):
    args = cutaway.TrainingArguments(
        sys.argv[1], disable_tqdm=True, use_cpu=True, per_device_eval_batch_size=8,
        batch_eval_metrics=given.get("compute_metrics") is streamed,
    )
    trainer = cutaway.Trainer(model=cutaway.BertForMaskedLM(config), args=args, eval_dataset=rows, **given)
    before = before or held()
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] > 9 and metrics.get("eval_seen", count) == count
    print(held() - before)
"""


def test_an_evaluation_of_masked_texts_adds_less_than_500_mb(tmp_path: Path) -> None:
    command = [sys.executable, "-c", EVALUATION, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    added = [int(line) for line in done.stdout.split()]
    assert len(added) == 3 and max(added) < 500, added


@pytest.mark.parametrize("name", ["BertForMaskedLM", "GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_parts_of_a_batch_give_what_the_batch_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def found(**given: Any) -> tuple[Any, list[int], dict[str, float]]:
        sizes: list[int] = []

        def keep(logits: Any, labels: Any) -> Any:
            sizes.append(len(logits))
            assert len(labels) == len(logits)
            return logits

        args = arguments(tmp_path, per_device_eval_batch_size=5, **given)
        trainer = cutaway.Trainer(model=model(name), args=args, preprocess_logits_for_metrics=keep)
        said = trainer.predict(rows(name, 12))
        assert said.metrics["test_steps_per_second"] / said.metrics["test_samples_per_second"] == pytest.approx(3 / 12)
        return said.predictions, sizes, said.metrics

    whole, sizes, metrics = found()
    assert sizes == [5, 5, 2]
    monkeypatch.setattr(evaluation, "_LOGITS", 1)
    parts, sizes, of_parts = found()
    assert sizes == [1] * 12
    assert np.abs(whole - parts).max() < 1e-5 and whole.shape == parts.shape
    assert of_parts["test_loss"] == pytest.approx(metrics["test_loss"], abs=1e-6)
    assert found(match_upstream=True)[1] == [5, 5, 2]


def test_a_forward_of_the_users_own_sees_the_logits(tmp_path: Path) -> None:
    class Watched(cutaway.BertForMaskedLM):
        seen = 0

        def forward(self, *args: Any, **given: Any) -> Any:
            found = super().forward(*args, **given)
            self.seen += found.logits.shape[-1]
            return found

    watched = Watched(model("BertForMaskedLM").config)
    args = arguments(tmp_path, max_steps=1)
    cutaway.Trainer(model=watched, args=args, train_dataset=rows("BertForMaskedLM")).train()
    assert watched.seen


def test_a_step_calls_no_more_functions_late_in_a_training(tmp_path: Path) -> None:
    calls: dict[int, int] = {}

    class Count(cutaway.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            step = state.global_step
            calls[step] = 0

            def seen(frame: Any, event: str, argument: Any) -> None:
                calls[step] += event in ("call", "c_call")

            sys.setprofile(seen)

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            sys.setprofile(None)

    args = arguments(tmp_path, max_steps=120, per_device_train_batch_size=8, lr_scheduler_type="constant")
    before = sys.getprofile()
    try:
        cutaway.Trainer(model=model(NAME), args=args, train_dataset=rows(NAME), callbacks=[Count]).train()
    finally:
        sys.setprofile(before)
    early, late = sorted(calls[step] for step in range(20, 40)), sorted(calls[step] for step in range(100, 120))
    assert late[10] == early[10] > 1000
