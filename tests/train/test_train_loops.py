"""Other people's loops and scripts around our models: accelerate, Lightning, a script for transformers."""

from __future__ import annotations

import json
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny import wordpiece
from torch.utils.data import DataLoader
from training_samples import furthest, model, rows, weights

import cutaway

NAME = "BertForTokenClassification"
RATE = 1e-2


def loader() -> Any:
    return DataLoader(rows(NAME, 12), batch_size=4, collate_fn=cutaway.default_data_collator)  # type: ignore[arg-type]


def plain() -> Any:
    """The tutorials' own loop."""
    ours = model(NAME).train()
    optimizer = torch.optim.AdamW(ours.parameters(), lr=RATE)
    schedule = cutaway.get_linear_schedule_with_warmup(optimizer, 1, 6)
    for _ in range(2):
        for batch in loader():
            ours(**batch).loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return weights(ours)


def test_accelerate_trains_our_model() -> None:
    accelerator = Accelerator(cpu=True)
    ours = model(NAME).train()
    optimizer = torch.optim.AdamW(ours.parameters(), lr=RATE)
    schedule = cutaway.get_linear_schedule_with_warmup(optimizer, 1, 6)
    ours, optimizer, batches, schedule = accelerator.prepare(ours, optimizer, loader(), schedule)
    for _ in range(2):
        for batch in batches:
            with accelerator.accumulate(ours):
                accelerator.backward(ours(**batch).loss)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    assert furthest(weights(accelerator.unwrap_model(ours)), plain()) < 1e-6


def test_lightning_trains_our_model(tmp_path: Path) -> None:
    with warnings.catch_warnings():  # what it imports is its own
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("lightning")

        class Task(lightning.LightningModule):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                super().__init__()
                self.inner = model(NAME)

            def training_step(self, batch: Any, _: int) -> torch.Tensor:
                return self.inner(**batch).loss  # type: ignore[no-any-return]

            def configure_optimizers(self) -> Any:
                optimizer = torch.optim.AdamW(self.parameters(), lr=RATE)
                schedule = cutaway.get_linear_schedule_with_warmup(optimizer, 1, 6)
                return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        task = Task().train()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        lightning.Trainer(
            max_epochs=2, accelerator="cpu", devices=1, enable_model_summary=False, default_root_dir=tmp_path, **quiet
        ).fit(task, loader())
    assert furthest(weights(task.inner), plain()) < 1e-6


# the shape of the public recipes: tokenize, collate, Trainer, compute_metrics, everything into a folder
SCRIPT = textwrap.dedent(
    """
    import numpy as np
    from datasets import Dataset, DatasetDict
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        EvalPrediction,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    training_args = TrainingArguments(
        output_dir=output, do_train=True, do_eval=True, per_device_train_batch_size=32, per_device_eval_batch_size=8,
        learning_rate=1e-3, num_train_epochs=3, eval_strategy="epoch", save_strategy="epoch", save_total_limit=1,
        logging_steps=1, load_best_model_at_end=True, metric_for_best_model="accuracy", greater_is_better=True,
        report_to="none", use_cpu=True, disable_tqdm=True, seed=7, push_to_hub=False, warmup_steps=1, weight_decay=0.01,
    )
    set_seed(training_args.seed)
    raw = DatasetDict({
        "train": Dataset.from_dict({"sentence": texts, "label": labels}),
        "validation": Dataset.from_dict({"sentence": texts[:10], "label": labels[:10]}),
    })
    config = AutoConfig.from_pretrained(start, num_labels=2, finetuning_task="sst2")
    tokenizer = AutoTokenizer.from_pretrained(start, use_fast=True)
    model = AutoModelForSequenceClassification.from_pretrained(start, config=config)
    model.config.label2id = {"bad": 0, "good": 1}
    model.config.id2label = {0: "bad", 1: "good"}

    def preprocess(examples):
        return tokenizer(examples["sentence"], padding=False, max_length=32, truncation=True)

    encoded = raw.map(preprocess, batched=True)

    def compute_metrics(p: EvalPrediction):
        preds = p.predictions[0] if isinstance(p.predictions, tuple) else p.predictions
        return {"accuracy": (np.argmax(preds, axis=1) == p.label_ids).astype(np.float32).mean().item()}

    trainer = Trainer(
        model=model, args=training_args, train_dataset=encoded["train"], eval_dataset=encoded["validation"],
        compute_metrics=compute_metrics, processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8),
    )
    if training_args.do_train:
        train_result = trainer.train(resume_from_checkpoint=None)
    metrics = train_result.metrics
    metrics["train_samples"] = len(encoded["train"])
    trainer.save_model()
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()
    metrics = trainer.evaluate(eval_dataset=encoded["validation"])
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)
    kwargs = {"finetuned_from": "a base", "tasks": "text-classification", "language": "en", "dataset_tags": "glue"}
    trainer.create_model_card(**kwargs)
    predictions = np.argmax(trainer.predict(encoded["validation"].remove_columns("label")).predictions, axis=1)
    """
)


def test_a_script_for_transformers_runs_with_its_import_changed(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    texts = ["a great film", "a bad one", "i trust it", "not very good", "good and great", "bad , bad"] * 4
    start = cutaway.BertForSequenceClassification(
        model(
            "BertForSequenceClassification", vocab_size=len(tokenizer), num_labels=2, max_position_embeddings=64
        ).config
    )
    start.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    found = []
    for library in ("transformers", "cutaway"):
        output = tmp_path / library
        given = {
            "start": str(tmp_path / "start"),
            "output": str(output),
            "texts": texts,
            "labels": [1, 0, 1, 0, 1, 0] * 4,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if library == "transformers" else "error")
            exec(SCRIPT.replace("from transformers import", f"from {library} import"), given)
        told = json.loads((output / "all_results.json").read_text())
        state = json.loads((output / "trainer_state.json").read_text())
        losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
        found.append((told["eval_loss"], told["eval_accuracy"], losses, given["predictions"]))
        assert {"README.md", "model.safetensors", "config.json", "tokenizer.json", "train_results.json"} <= {
            p.name for p in output.iterdir()
        }
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3)
    assert found[1][1] == found[0][1]
    assert found[1][2] == pytest.approx(found[0][2], rel=1e-3)
    assert np.array_equal(found[1][3], found[0][3])
    card = (tmp_path / "cutaway" / "README.md").read_text()
    assert 'base_model: "a base"\n' in card and "| step | loss | accuracy |\n| --- | --- | --- |\n" in card
    again = cutaway.AutoModelForSequenceClassification.from_pretrained(tmp_path / "cutaway")
    assert again.config.id2label == {0: "bad", 1: "good"}
