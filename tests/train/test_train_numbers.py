"""What training tells and keeps: labels beside padding, the kind of a task, metrics and losses that are no numbers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import wordpiece
from training_samples import arguments, model, rows

import cutaway
from cutaway.errors import InputError

NAME = "BertForSequenceClassification"


def pair(tmp_path: Path, side: str) -> tuple[Any, Any]:
    """One tokenizer of each library, which pads on `side`."""
    wordpiece().save_pretrained(tmp_path / "tokenizer")
    found = [library.AutoTokenizer.from_pretrained(tmp_path / "tokenizer") for library in (cutaway, transformers)]
    for one in found:
        one.padding_side = side
    return found[0], found[1]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("form", ["pt", "np"])
def test_labels_stand_on_the_side_of_the_padding(tmp_path: Path, side: str, form: str) -> None:
    ours, theirs = pair(tmp_path, side)
    data = [{"input_ids": list(range(5, 5 + n)), "labels": list(range(8, 8 + n))} for n in (2, 5, 3)]
    for settings in ({}, {"pad_to_multiple_of": 4}, {"padding": "max_length", "max_length": 9}):
        made = [
            library.DataCollatorForSeq2Seq(tokenizer, return_tensors=form, **settings)([dict(row) for row in data])
            for library, tokenizer in ((cutaway, ours), (transformers, theirs))
        ]
        for name in ("input_ids", "attention_mask", "labels"):
            assert type(made[0][name]) is type(made[1][name])
            assert np.asarray(made[0][name]).tolist() == np.asarray(made[1][name]).tolist()
    learn = cutaway.DataCollatorForLanguageModeling(ours, mlm=False)
    own = [{**row, "labels": [-100, *row["labels"][1:]]} for row in data]
    batch = learn(own)
    for place, row in enumerate(own):
        real = batch["attention_mask"][place].bool()
        assert batch["labels"][place][real].tolist() == row["labels"]
        assert (batch["labels"][place][~real] == -100).all()
    assert learn([{"input_ids": [5, 6]}, {"input_ids": [7]}])["labels"].tolist() in (
        [[5, 6], [7, -100]],
        [[5, 6], [-100, 7]],
    )
    with pytest.raises(InputError, match="3 labels but 2 tokens"):
        learn([{"input_ids": [5, 6], "labels": [5, 6, 7]}])


def test_flattened_texts_say_where_they_begin() -> None:
    data = [{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9], "attention_mask": [1, 1]}]
    settings: dict[str, Any] = {
        "return_flash_attn_kwargs": True, "return_seq_idx": True, "position_ids_start": 2, "separator_id": -7,
    }  # fmt: skip
    for form in ("pt", "np"):
        ours, theirs = (
            library.DataCollatorWithFlattening(return_tensors=form, **settings)(data)
            for library in (cutaway, transformers)
        )
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert np.asarray(ours[name]).tolist() == np.asarray(value).tolist()
            assert getattr(ours[name], "dtype", None) == getattr(value, "dtype", None)


@pytest.mark.parametrize(
    ("labels", "n", "kind"),
    [
        ([0.5, 1.5, 2.5, 3.5], 1, "regression"),
        ([1, 0, 1, 0], 2, "single_label_classification"),
        ([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], 2, "multi_label_classification"),
    ],
)
def test_the_kind_of_task_that_training_found_is_saved(tmp_path: Path, labels: list[Any], n: int, kind: str) -> None:
    data = [{"input_ids": [5, 6, 7], "labels": label} for label in labels]
    trainer = cutaway.Trainer(model(NAME, num_labels=n), arguments(tmp_path, max_steps=1), train_dataset=data)
    assert trainer.model.config.problem_type is None
    trainer.train()
    trainer.save_model(tmp_path / "model")
    again = cutaway.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert again.config.problem_type == kind
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "model")
    assert theirs.problem_type == kind


@pytest.mark.parametrize("greater", [True, False])
def test_a_metric_that_is_no_number_is_never_the_best(
    tmp_path: Path, greater: bool, caplog: pytest.LogCaptureFixture
) -> None:
    scores = iter([float("nan"), 0.5, float("nan"), 0.6 if greater else 0.4, float("nan"), float("nan")])
    args = arguments(
        tmp_path, max_steps=6, per_device_train_batch_size=2, eval_strategy="steps", eval_steps=1,
        save_strategy="steps", save_steps=1, metric_for_best_model="quality", greater_is_better=greater,
        load_best_model_at_end=True,
    )  # fmt: skip
    trainer = cutaway.Trainer(
        model(NAME), args, train_dataset=rows(NAME), eval_dataset=rows(NAME, 2),
        compute_metrics=lambda _: {"quality": next(scores)},
        callbacks=[cutaway.EarlyStoppingCallback(early_stopping_patience=2)],
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "cutaway"):
        assert trainer.train().global_step == 6
    assert trainer.state.best_global_step == 4
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-4")
    assert "is no number at step 1" in caplog.text


class Sometimes(cutaway.Trainer):
    """A loss that is no number every second time."""

    calls = 0

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        self.calls += 1
        loss = loss * (float("nan") if self.calls % 2 == 0 else 0.0) + (2.0 if self.calls % 2 else 0.0)
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize("hidden", [True, False])
def test_losses_that_are_no_numbers(tmp_path: Path, hidden: bool, caplog: pytest.LogCaptureFixture) -> None:
    args = arguments(
        tmp_path, max_steps=4, logging_steps=2, per_device_train_batch_size=2, per_device_eval_batch_size=2,
        logging_nan_inf_filter=hidden, learning_rate=0.0,
    )  # fmt: skip
    trainer = Sometimes(model(NAME), args, train_dataset=rows(NAME), eval_dataset=rows(NAME, 4))
    trainer.create_optimizer = lambda: setattr(
        trainer, "optimizer", torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])
    )  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING, "cutaway"):
        trainer.train()
    logged = [e["loss"] for e in trainer.state.log_history if "loss" in e]
    # upstream counts such a loss as the mean since the last log, which is 2 / (1 + 1)
    assert logged == ([1.5, 1.5] if hidden else [pytest.approx(float("nan"), nan_ok=True)] * 2)
    assert ("were no numbers" in caplog.text) == hidden
    trainer.calls = 0
    assert trainer.evaluate()["eval_loss"] == (2.0 if hidden else pytest.approx(float("nan"), nan_ok=True))


def test_a_learning_rate_that_a_resume_does_not_take_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def trained(rate: float, steps: int, resume: bool | None = None) -> Any:
        args = arguments(tmp_path, max_steps=steps, save_strategy="steps", save_steps=2, learning_rate=rate)
        trainer = cutaway.Trainer(model(NAME), args, train_dataset=rows(NAME))
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    trained(1e-3, 2)
    with caplog.at_level(logging.WARNING, "cutaway"):
        trained(1e-3, 3, True)
        assert "learning rate" not in caplog.text
        trained(5e-4, 4, True)
    assert "the learning rate 0.001, which goes on; the 0.0005 of the arguments is not used" in caplog.text


def test_tokens_that_the_config_lacks_are_the_tokenizers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fields: dict[str, Any] = {
        "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 40,
    }  # fmt: skip
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields, bos_token_id=1, eos_token_id=2))
    base.save_pretrained(tmp_path / "base")
    ours, theirs = pair(tmp_path, "right")
    for one in (ours, theirs):
        one.eos_token, one.pad_token = "[SEP]", "[PAD]"
    told = []
    data = [{"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "labels": [5, 6, 7]}] * 4
    with caplog.at_level(logging.WARNING, "cutaway"):
        for library, tokenizer in ((cutaway, ours), (transformers, theirs)):
            net = library.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
            args = library.TrainingArguments(
                str(tmp_path / "out"), max_steps=1, use_cpu=True, report_to="none", disable_tqdm=True,
                save_strategy="no",
            )  # fmt: skip
            trainer = library.Trainer(net, args, train_dataset=data, processing_class=tokenizer)
            trainer.train()
            told.append([(c.eos_token_id, c.bos_token_id, c.pad_token_id) for c in (net.config, net.generation_config)])
            if library is cutaway:
                trainer.train()
    assert told[0] == told[1]
    assert caplog.text.count("other special tokens") == 1


def test_the_last_step_is_evaluated_as_upstream_does(tmp_path: Path) -> None:
    def evaluated(library: Any, **more: Any) -> list[int]:
        (tmp_path / "model").exists() or model(NAME).save_pretrained(tmp_path / "model")
        net = library.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
        settings = {"max_steps": 5, "use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
        args = library.TrainingArguments(str(tmp_path / "out"), eval_strategy="steps", **settings, **more)
        trainer = library.Trainer(net, args, library.default_data_collator, rows(NAME)[:1] * 4, rows(NAME)[:1] * 2)
        trainer.train()
        return [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]

    for more in ({"eval_steps": 2}, {"eval_steps": 5}, {"eval_steps": 2, "eval_delay": 6}, {"eval_steps": 9}):
        assert evaluated(cutaway, **more) == evaluated(transformers, **more)


def test_what_callbacks_count_and_were_made_with_survives(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def trainer(patience: int | None, resume: bool | None = None, **more: Any) -> Any:
        args = arguments(
            tmp_path, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
            metric_for_best_model="loss", learning_rate=0.0, **more,
        )  # fmt: skip
        callbacks = [] if patience is None else [cutaway.EarlyStoppingCallback(patience)]
        made = cutaway.Trainer(model(NAME), args, None, rows(NAME), rows(NAME, 2), callbacks=callbacks)
        made.train(resume_from_checkpoint=resume)
        return made.pop_callback(cutaway.EarlyStoppingCallback)

    assert trainer(5, max_steps=2).early_stopping_patience_counter == 1
    again = trainer(7, True, max_steps=3)
    assert (again.early_stopping_patience, again.early_stopping_patience_counter) == (7, 2)
    again = trainer(1, True, max_steps=4, restore_callback_states_from_checkpoint=True)
    assert (again.early_stopping_patience, again.early_stopping_patience_counter) == (7, 3)
    with caplog.at_level(logging.WARNING, "cutaway"):
        trainer(None, True, max_steps=5, restore_callback_states_from_checkpoint=True)
    assert "EarlyStoppingCallback" in caplog.text


def test_a_metric_that_follows_gets_tensors(tmp_path: Path) -> None:
    seen: list[Any] = []

    def metric(given: Any, compute_result: bool) -> dict[str, float]:
        seen.append(given)
        return {"accuracy": float((given.predictions.argmax(-1) == given.label_ids).float().mean())}

    args = arguments(tmp_path, batch_eval_metrics=True, per_device_eval_batch_size=2)
    trainer = cutaway.Trainer(model(NAME), args, None, None, rows(NAME, 4), compute_metrics=metric)
    assert "eval_accuracy" in trainer.evaluate()
    assert all(isinstance(value, torch.Tensor) for given in seen for value in given)
    # what `predict` is asked for is there all the same
    asked = trainer.predict(rows(NAME, 5))
    plain = cutaway.Trainer(trainer.model, arguments(tmp_path / "plain")).predict(rows(NAME, 5))
    assert "test_accuracy" in asked.metrics and len(asked.predictions) == len(asked.label_ids) == 5
    assert np.allclose(asked.predictions, plain.predictions, atol=1e-5)
