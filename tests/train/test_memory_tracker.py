"""What stages of a training take of the memory, under upstream's names."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from training_samples import arguments, model, rows

import cutaway
from cutaway.train.memory_tracker import MemoryTracker

NAME = "BertForSequenceClassification"
MEGABYTE = 2**20


def test_what_is_kept_and_what_was_there_for_a_time() -> None:
    tracker = MemoryTracker()
    assert tracker.metrics("train", "train") == {}
    with tracker.stage("train"):
        kept = torch.ones(16 * MEGABYTE)  # 64 MB
        for_a_time = torch.ones(64 * MEGABYTE)
        for_a_time.mul_(1.5).sqrt_()  # long enough for a look
        del for_a_time
        with tracker.stage("eval"):
            assert tracker.metrics("eval", "eval") == {}
        found = tracker.metrics("train", "train")
    assert 50 * MEGABYTE < found["train_mem_cpu_alloc_delta"] < 250 * MEGABYTE
    assert found["train_mem_cpu_peaked_delta"] > 150 * MEGABYTE
    assert len(kept) and tracker.metrics("train", "train") == {}


def test_a_trainer_says_it_under_upstream_s_names(tmp_path: Path) -> None:
    def keys(library: object, config: type, kind: type, own: object) -> list[set[str]]:
        trainer = library.Trainer(  # type: ignore[attr-defined]
            model=own, args=config, train_dataset=rows(NAME, 4), eval_dataset=rows(NAME, 4)
        )
        trainer.remove_callback(transformers.PrinterCallback)
        found = [trainer.train().metrics, trainer.evaluate(), trainer.predict(rows(NAME, 4)).metrics]
        return [{k for k in one if "_mem_" in k} for one in found]

    ours = model(NAME)
    ours.save_pretrained(tmp_path / "model")
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "model")
    more = {"skip_memory_metrics": False, "max_steps": 1, "use_cpu": True, "report_to": "none", "disable_tqdm": True}
    here = keys(cutaway, arguments(tmp_path, **more), type, ours)
    there = keys(transformers, transformers.TrainingArguments(str(tmp_path), save_strategy="no", **more), type, theirs)
    assert here == there
    assert {"init_mem_cpu_alloc_delta", "train_mem_cpu_peaked_delta"} <= here[0] and here[1]
    quiet = cutaway.Trainer(model=model(NAME), args=arguments(tmp_path, max_steps=1), train_dataset=rows(NAME, 4))
    assert not [k for k in quiet.train().metrics if "_mem_" in k]
