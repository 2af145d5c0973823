"""`Trainer` as tutorials use it, and against a plain loop on transformers' model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
import torch
import transformers
from tiny import wordpiece
from training_samples import arguments, furthest, model, rows, weights

import cutaway
from cutaway.errors import ConfigError, InputError
from cutaway.train.dataset import open_rows

NAME = "BertForSequenceClassification"
TEXTS = ["a great film", "a bad one", "i trust it", "not very good", "good and great", "bad , bad"] * 3


def reviews() -> datasets.Dataset:
    """Texts, encoded by a tokenizer, with columns that no model takes."""
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": [1, 0, 1, 0, 1, 0] * 3, "source": ["x"] * len(TEXTS)})
    tokenizer = wordpiece()
    return data.map(lambda row: tokenizer(row["text"], truncation=True), batched=True)


def small(**fields: Any) -> Any:
    return model(NAME, vocab_size=len(wordpiece()), num_labels=2, max_position_embeddings=64, **fields)


def tokenizer(folder: Path) -> Any:
    wordpiece().save_pretrained(folder / "tokenizer")
    return cutaway.AutoTokenizer.from_pretrained(folder / "tokenizer")


def test_a_tutorial(tmp_path: Path) -> None:
    def accuracy(given: Any) -> dict[str, Any]:
        logits, labels = given
        return {"accuracy": np.mean(np.argmax(logits, axis=-1) == labels)}

    data = reviews().train_test_split(6, seed=0)
    settings = cutaway.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        num_train_epochs=2,
        evaluation_strategy="epoch",
        save_strategy="epoch",
        learning_rate=1e-3,
        load_best_model_at_end=True,
        save_total_limit=1,
        disable_tqdm=True,
        use_cpu=True,
        report_to="none",
        logging_steps=2,
        seed=7,
    )
    trainer = cutaway.Trainer(
        model=small(),
        args=settings,
        train_dataset=data["train"],
        eval_dataset=data["test"],
        tokenizer=tokenizer(tmp_path),
        compute_metrics=accuracy,
    )
    steps, loss, metrics = trainer.train()
    assert steps == 6
    assert loss == metrics["train_loss"] > 0
    told = trainer.state.log_history
    assert [e["step"] for e in told if "loss" in e] == [2, 4, 6]
    assert all({"loss", "grad_norm", "learning_rate", "epoch", "step"} <= e.keys() for e in told if "loss" in e)
    evaluated = [e for e in told if "eval_loss" in e]
    assert [e["epoch"] for e in evaluated] == [1.0, 2.0]
    assert {"eval_accuracy", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"} <= evaluated[0].keys()
    best = min(evaluated, key=lambda e: e["eval_loss"])
    assert trainer.state.best_model_checkpoint == str(tmp_path / "out" / f"checkpoint-{best['step']}")
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best["eval_loss"], rel=1e-6)
    said, labels, scores = trainer.predict(data["test"])
    assert said.shape == (6, 2)
    assert labels.tolist() == data["test"]["label"]
    assert scores["test_accuracy"] == best["eval_accuracy"]
    trainer.save_model(tmp_path / "final")
    again = cutaway.AutoModelForSequenceClassification.from_pretrained(tmp_path / "final")
    assert furthest(weights(again), weights(trainer.model)) == 0.0
    assert cutaway.AutoTokenizer.from_pretrained(tmp_path / "final")("a film")["input_ids"]
    upstream = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "final")
    assert upstream.config.num_labels == 2


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_weights_are_those_of_a_plain_loop_on_transformers_model(schedule: str, tmp_path: Path) -> None:
    ours = model(NAME)
    ours.save_pretrained(tmp_path / "start")
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "start").train()
    data = rows(NAME, 20)
    args = arguments(
        tmp_path,
        per_device_train_batch_size=4,
        max_steps=5,
        learning_rate=1e-3,
        weight_decay=0.01,
        lr_scheduler_type=schedule,
        warmup_steps=2,
        train_sampling_strategy="sequential",
    )
    trainer = cutaway.Trainer(model=ours, args=args, train_dataset=data)
    trainer.train()

    decays = [p for p in theirs.parameters() if p.dim() > 1]
    others = [p for p in theirs.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decays}, {"params": others, "weight_decay": 0.0}], lr=1e-3)
    rates = getattr(transformers, f"get_{schedule}_schedule_with_warmup")(optimizer, 2, 5)
    for step in range(5):
        batch = transformers.default_data_collator(data[4 * step : 4 * step + 4])
        loss = theirs(**batch).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        told = trainer.state.log_history[step]
        assert told["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert told["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
        assert told["learning_rate"] == rates.get_last_lr()[0]
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
    theirs.save_pretrained(tmp_path / "end")
    wanted = cutaway.BertForSequenceClassification.from_pretrained(tmp_path / "end")
    # a key's bias has no gradient but rounding, which AdamW blows up to whole steps; no output depends on it
    found = {k: v for k, v in weights(ours).items() if not k.endswith("self.key.bias")}
    assert furthest(found, {k: v for k, v in weights(wanted).items() if k in found}) < 1e-5


@pytest.mark.parametrize("kind", ["dataset", "torch format", "list", "frame", "generator", "function"])
def test_rows_may_come_from_anything(kind: str, tmp_path: Path) -> None:
    data = reviews()
    plain = [{k: row[k] for k in ("input_ids", "attention_mask", "label", "text")} for row in data]
    given: Any = {
        "dataset": data,
        "torch format": data.with_format("torch", columns=["input_ids", "attention_mask", "label"]),
        "list": plain,
        "frame": pandas.DataFrame(plain),
        "generator": (row for row in plain),
        "function": lambda: iter(plain),
    }[kind]
    args = arguments(tmp_path, max_steps=3, per_device_train_batch_size=4, train_sampling_strategy="sequential")
    trainer = cutaway.Trainer(model=small(), args=args, train_dataset=given, tokenizer=tokenizer(tmp_path))
    trainer.train()
    reference = cutaway.Trainer(model=small(), args=args, train_dataset=plain, tokenizer=tokenizer(tmp_path))
    reference.train()
    assert furthest(weights(trainer.model), weights(reference.model)) == 0.0


def test_rows_without_a_length_say_what_they_need(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = rows(NAME, 4)
    with pytest.raises(InputError, match="max_steps"):
        cutaway.Trainer(model=model(NAME), args=arguments(tmp_path), train_dataset=iter(few)).train()
    args = arguments(tmp_path, max_steps=9, per_device_train_batch_size=2)
    out = cutaway.Trainer(model=model(NAME), args=args, train_dataset=iter(few)).train()
    assert out.global_step == 2
    assert "used up" in caplog.text
    again = cutaway.Trainer(model=model(NAME), args=args, train_dataset=lambda: iter(few))
    assert again.train().global_step == 9
    assert [e["epoch"] for e in again.state.log_history[2:9]] == [1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]
    stored = datasets.Dataset.from_list(few).with_format("torch")
    lazy = cutaway.Trainer(model=model(NAME), args=args, train_dataset=stored.to_iterable_dataset())
    lazy.train()
    assert furthest(weights(lazy.model), weights(again.model)) == 0.0
    with pytest.raises(InputError, match="train_dataset"):
        cutaway.Trainer(model=model(NAME), args=args).train()
    with pytest.raises(InputError, match="no rows"):
        cutaway.Trainer(model=model(NAME), args=args, train_dataset=[]).train()
    with pytest.raises(InputError, match="its parts"):
        open_rows({"train": few})
    with pytest.raises(InputError, match="tokenize"):
        cutaway.Trainer(model=model(NAME), args=args, train_dataset=[{"text": "a"}]).train()


def test_evaluation_is_the_mean_over_all_labels_and_changes_no_training(tmp_path: Path) -> None:
    name = "BertForMaskedLM"
    data = rows(name, 16)
    ours = model(name)
    trainer = cutaway.Trainer(model=ours, args=arguments(tmp_path, per_device_eval_batch_size=5), eval_dataset=data)
    whole = ours.eval()(**cutaway.default_data_collator(data)).loss.item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(whole, rel=1e-5)

    def after(**more: Any) -> Any:
        made = small(hidden_dropout_prob=0.2)
        settings = arguments(tmp_path, max_steps=4, per_device_train_batch_size=4, **more)
        cutaway.Trainer(
            model=made, args=settings, train_dataset=reviews(), eval_dataset=reviews(), tokenizer=tokenizer(tmp_path)
        ).train()
        return weights(made)

    assert furthest(after(), after(eval_strategy="steps", eval_steps=1)) == 0.0


def test_epochs_steps_and_the_last_small_update(tmp_path: Path) -> None:
    data = rows(NAME, 10)
    seen: list[float] = []

    class Watch(cutaway.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(state.epoch)
            assert kwargs["model"] is trainer.model

    args = arguments(tmp_path, num_train_epochs=2, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    trainer = cutaway.Trainer(model=model(NAME), args=args, train_dataset=data, callbacks=[Watch])
    assert trainer.train().global_step == 6
    assert seen == [0.4, 0.8, 1.0, 1.4, 1.8, 2.0]
    trainer.remove_callback(Watch)
    trainer.add_callback(Watch())
    half = arguments(tmp_path, num_train_epochs=0.5, per_device_train_batch_size=2)
    assert cutaway.Trainer(model=model(NAME), args=half, train_dataset=data).train().global_step == 3


def test_early_stopping_and_save_best(tmp_path: Path) -> None:
    scores = iter([0.5, 0.6, 0.6, 0.4, 0.9])
    args = arguments(
        tmp_path,
        max_steps=10,
        per_device_train_batch_size=2,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        metric_for_best_model="quality",
        greater_is_better=True,
    )
    trainer = cutaway.Trainer(
        model=model(NAME),
        args=args,
        train_dataset=rows(NAME),
        eval_dataset=rows(NAME, 2),
        compute_metrics=lambda _: {"quality": next(scores)},
        callbacks=[cutaway.EarlyStoppingCallback(early_stopping_patience=2)],
    )
    assert trainer.train().global_step == 4
    assert trainer.state.best_metric == 0.6
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    with pytest.raises(ConfigError, match="EarlyStoppingCallback"):
        cutaway.Trainer(
            model=model(NAME),
            args=arguments(tmp_path),
            train_dataset=rows(NAME),
            callbacks=[cutaway.EarlyStoppingCallback()],
        ).train()


def test_a_loss_of_ones_own_is_weighed_too(tmp_path: Path) -> None:
    class Doubled(cutaway.Trainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
            return (loss * 2, outputs) if return_outputs else loss * 2

    data = rows(NAME)
    told = []
    for cls, size, parts in ((cutaway.Trainer, 16, 1), (Doubled, 16, 1), (Doubled, 6, 3)):
        args = arguments(tmp_path, max_steps=1, per_device_train_batch_size=size, gradient_accumulation_steps=parts)
        trainer = cls(model=model(NAME), args=args, train_dataset=data, eval_dataset=data)
        trainer.train()
        told.append((trainer.state.log_history[0]["loss"], trainer.evaluate()["eval_loss"]))
    assert told[1] == pytest.approx([2 * v for v in told[0]], rel=1e-4)
    assert told[2] == pytest.approx(told[1], rel=1e-4)


def test_models_and_optimizers_of_ones_own(tmp_path: Path) -> None:
    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
            y = self.layer(x[:, None])[:, 0]
            return {"prediction": y} if labels is None else {"loss": (y - labels).pow(2).mean(), "prediction": y}

    data = [{"x": i / 8, "labels": 2 * i / 8 + 1} for i in range(8)]
    line = Line()
    optimizer = torch.optim.SGD(line.parameters(), lr=0.5)
    args = arguments(tmp_path, num_train_epochs=40, per_device_train_batch_size=3, lr_scheduler_type="constant")
    trainer = cutaway.Trainer(model=line, args=args, train_dataset=data, optimizers=(optimizer, None))
    trainer.train()
    assert line.layer.weight.item() == pytest.approx(2, abs=0.05)
    found = trainer.predict([{"x": 0.5}])
    assert found.predictions == pytest.approx([2.0], abs=0.05)
    assert found.label_ids is None
    trainer.save_model(tmp_path / "line")
    assert (tmp_path / "line" / "model.safetensors").exists()


def test_several_evaluation_sets_and_several_lengths(tmp_path: Path) -> None:
    name = "BertForTokenClassification"
    data = rows(name, 4)
    shorter = [{k: v[:8] for k, v in row.items()} for row in rows(name, 4)]
    args = arguments(tmp_path, per_device_eval_batch_size=4)
    trainer = cutaway.Trainer(model=model(name), args=args, eval_dataset={"one": data, "two": shorter})
    assert {"eval_one_loss", "eval_two_loss"} <= trainer.evaluate().keys()
    found = trainer.predict([*data, *shorter])
    assert found.predictions.shape == (8, 10, 3)
    assert (found.predictions[4:, 8:] == -100).all()
    spans = "BertForQuestionAnswering"
    asked = cutaway.Trainer(model=model(spans), args=args).predict(rows(spans, 4))
    assert [p.shape for p in asked.predictions] == [(4, 10), (4, 10)]
    assert len(asked.label_ids) == 2
    assert math.isfinite(asked.metrics["test_loss"])


def test_lines_are_said_on_standard_error_unless_it_shall_be_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for quiet in (True, False):
        args = arguments(tmp_path, max_steps=2, logging_steps=1, disable_tqdm=quiet)
        cutaway.Trainer(model=model(NAME), args=args, train_dataset=rows(NAME)).train()
        out, told = capsys.readouterr()
        assert out == ""
        assert (told == "") == quiet
    assert told.startswith("step 1/2  loss ")
    assert "left 0:0" in told.splitlines()[0]


def test_what_is_not_a_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a model"):
        cutaway.Trainer(model="bert", args=arguments(tmp_path))
    with pytest.raises(ConfigError, match="eval_dataset"):
        cutaway.Trainer(model=model(NAME), args=arguments(tmp_path, eval_strategy="epoch"))
    with pytest.raises(ConfigError, match="differ"):
        cutaway.Trainer(model=model(NAME), tokenizer=object(), processing_class=object())
    frozen = model(NAME)
    for p in frozen.parameters():
        p.requires_grad = False
    with pytest.raises(ConfigError, match="requires_grad"):
        cutaway.Trainer(model=frozen, args=arguments(tmp_path), train_dataset=rows(NAME)).train()
    bare = [{k: v for k, v in row.items() if k != "label"} for row in rows(NAME)]
    with pytest.raises(InputError, match="no loss"):
        cutaway.Trainer(model=model(NAME), args=arguments(tmp_path), train_dataset=bare).train()


def test_how_batches_are_made_ahead_changes_none(tmp_path: Path) -> None:
    def losses(**more: Any) -> list[float]:
        args = arguments(tmp_path, max_steps=3, **more)
        trainer = cutaway.Trainer(model=model(NAME), args=args, train_dataset=rows(NAME, 12))
        loader = trainer.get_train_dataloader()
        assert loader.prefetch_factor == more.get("dataloader_prefetch_factor", 2 if more else None)
        assert loader.num_workers == len(more.keys() & {"dataloader_num_workers"})
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    ahead = {
        "dataloader_multiprocessing_context": "fork",
        "dataloader_prefetch_factor": 3,
        "dataloader_in_order": False,
    }
    assert losses(dataloader_num_workers=1, **ahead) == losses()
    with pytest.raises(ConfigError, match="'frok'"):
        arguments(tmp_path, dataloader_multiprocessing_context="frok", dataloader_num_workers=1)
    with pytest.raises(ConfigError, match="nobody works ahead"):
        arguments(tmp_path, dataloader_multiprocessing_context="fork")
