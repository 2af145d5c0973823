"""A training step beside transformers' Trainer: the same weights, the same batches of texts, in turns.

A step is batch, forward, backward, clipping and optimizer. Each round runs every library once, in each precision. The
losses of all steps are compared before a time counts.
"""

from __future__ import annotations

import gc
import logging
import math
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

import cutaway

SIZES = {
    "small": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
TASKS = {"classify": "BertForSequenceClassification", "masked": "BertForMaskedLM"}
# name -> task, size, dropout (with which every library draws numbers of its own, so that losses cannot be compared)
JOBS = {
    "train_classify": ("classify", "small", 0.0),
    "train_dropout": ("classify", "small", 0.1),
    "train_masked": ("masked", "small", 0.0),
    "train_base": ("classify", "base", 0.0),
}
ROWS, VOCABULARY, STEPS = 16, 30522, 3
NEAR = {"fp32": 1e-4, "bf16": 3e-2}  # how far losses may lie from transformers' in float32, as a share


def lengths(count: int, middle: int = 56) -> list[int]:
    """Log-normal lengths, `middle` tokens in the middle and 8 to 400."""
    chance = random.Random(1)
    return [min(400, max(8, round(math.exp(chance.gauss(math.log(middle), 0.75))))) for _ in range(count)]


def rows(task: str, count: int) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)
    found = []
    for length in lengths(count):
        ids = torch.randint(1000, VOCABULARY, (length,), generator=draw)
        row: dict[str, Any] = {"input_ids": ids.tolist(), "attention_mask": [1] * length}
        if task == "classify":
            row["label"] = int(ids[0]) % 2
        else:
            chosen = torch.rand(length, generator=draw) < 0.15
            chosen[0] = True
            row["labels"] = ids.where(chosen, -100).tolist()
        found.append(row)
    return found


def padded(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    longest = max(len(r["input_ids"]) for r in batch)
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    names = [n for n in fill if n in batch[0]]
    made = {n: torch.tensor([r[n] + [fill[n]] * (longest - len(r[n])) for r in batch]) for n in names}
    if "label" in batch[0]:
        made["labels"] = torch.tensor([r["label"] for r in batch])
    return made


def clock(base: Any) -> Any:
    """A callback that notes (seconds, CPU seconds) of each step, from the end of the one before."""

    class Clock(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.steps: list[tuple[float, float]] = []
            self.last: tuple[float, float] | None = None

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.perf_counter(), time.process_time()
            if self.last is not None:
                self.steps.append((now[0] - self.last[0], now[1] - self.last[1]))
            self.last = now

    return Clock()


def steps(library: Any, folder: Path, task: str, data: list[Any], bf16: bool) -> tuple[Any, list[float]]:
    """((seconds, CPU seconds) of each step but the first, losses of all)."""
    model = getattr(library, TASKS[task]).from_pretrained(folder)
    watch = clock(library.TrainerCallback)
    args = library.TrainingArguments(
        output_dir=str(folder / "out"), use_cpu=True, disable_tqdm=True, report_to="none", save_strategy="no",
        max_steps=STEPS + 1, per_device_train_batch_size=ROWS, logging_steps=1, bf16=bf16, learning_rate=2e-5,
        train_sampling_strategy="sequential", optim="adamw_torch_fused", warmup_steps=0,
    )  # fmt: skip
    trainer = library.Trainer(model=model, args=args, train_dataset=data, data_collator=padded, callbacks=[watch])
    if library is transformers:
        trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    del model, trainer
    gc.collect()
    return watch.steps, losses


def job(task: str, size: str, rate: float, rounds: int) -> list[dict[str, Any]]:
    """One line for each library and precision; rates are of real tokens."""
    data = rows(task, ROWS * (STEPS + 1))
    tokens = [sum(len(r["input_ids"]) for r in data[i : i + ROWS]) for i in range(0, len(data), ROWS)][1:]
    config = transformers.BertConfig(
        **SIZES[size], vocab_size=VOCABULARY, num_labels=2, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate
    )
    seen: dict[tuple[str, str], list[Any]] = {}
    losses: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        getattr(transformers, TASKS[task])(config).save_pretrained(folder)
        for _ in range(rounds):
            for library in (transformers, cutaway):
                for precision in NEAR:
                    key = library.__name__, precision
                    found, losses[key] = steps(library, Path(folder), task, data, precision == "bf16")
                    seen.setdefault(key, []).append(found)
    for (name, precision), found in losses.items():
        for ours, theirs in zip(found, losses["transformers", "fp32"], strict=True):
            if not rate and abs(ours - theirs) > NEAR[precision] * abs(theirs):
                raise SystemExit(f"{task}: {name} in {precision} has the losses {found}, not {losses}")
    lines = []
    for (name, precision), every in seen.items():
        rates = [n / second for run in every for n, (second, _) in zip(tokens, run, strict=True)]
        lines.append({
            "name": name, "precision": precision, "rate": statistics.median(rates), "low": min(rates),
            "high": max(rates), "step_seconds": statistics.median(s for run in every for s, _ in run),
            "step_cpu_seconds": statistics.median(c for run in every for _, c in run),
            "losses": losses[name, precision], "rounds": every,
        })  # fmt: skip
    return lines


def suite(threads: int, rounds: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each job's name and lines."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    for name, (task, size, rate) in JOBS.items():
        yield name, job(task, size, rate, rounds)
