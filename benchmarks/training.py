"""A training step beside transformers' Trainer: the same weights, the same batches of texts, in turns.

    python benchmarks/training.py [--rounds 3] [--steps 4] [--size base|small] [--only classify,masked]

Each figure is CPU time of one whole step (batch, forward, backward, clipping, optimizer), one thread, the median over
all rounds; each round runs every library once.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

import cutaway

SIZES = {
    "small": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 3072},
}
TASKS = {"classify": "BertForSequenceClassification", "masked": "BertForMaskedLM"}
ROWS, VOCABULARY = 16, 30522


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
    """A callback that notes the CPU time of each step, from the end of the one before."""

    class Clock(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.last: float | None = None

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.process_time()
            if self.last is not None:
                self.seconds.append(now - self.last)
            self.last = now

    return Clock()


def steps(library: Any, folder: Path, task: str, data: list[Any], count: int, bf16: bool) -> tuple[list[float], float]:
    """(seconds of each step but the first, loss of the first)."""
    model = getattr(library, TASKS[task]).from_pretrained(folder)
    watch = clock(library.TrainerCallback)
    args = library.TrainingArguments(
        output_dir=str(folder / "out"), use_cpu=True, disable_tqdm=True, report_to="none", save_strategy="no",
        max_steps=count + 1, per_device_train_batch_size=ROWS, logging_steps=1, bf16=bf16, learning_rate=2e-5,
        train_sampling_strategy="sequential", optim="adamw_torch_fused", warmup_steps=0,
    )  # fmt: skip
    trainer = library.Trainer(model=model, args=args, train_dataset=data, data_collator=padded, callbacks=[watch])
    if library is transformers:
        trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    loss = float(trainer.state.log_history[0]["loss"])
    del model, trainer
    gc.collect()
    return watch.seconds, loss


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--steps", type=int, default=4)
    ask.add_argument("--size", choices=SIZES, default="base")
    ask.add_argument("--only", default="classify,masked")
    given = ask.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    for task in given.only.split(","):
        data = rows(task, ROWS * (given.steps + 1))
        real = sum(len(r["input_ids"]) for r in data)
        longest = [max(len(r["input_ids"]) for r in data[i : i + ROWS]) for i in range(0, len(data), ROWS)]
        config = {**SIZES[given.size], "vocab_size": VOCABULARY, "hidden_dropout_prob": 0.1, "num_labels": 2}
        seen: dict[tuple[str, bool], list[float]] = {}
        first: dict[tuple[str, bool], float] = {}
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            config["hidden_dropout_prob"] = config["attention_probs_dropout_prob"] = 0.0  # type: ignore[assignment]
            plain = getattr(transformers, TASKS[task])(transformers.BertConfig(**config))
            plain.save_pretrained(folder)
            for _ in range(given.rounds):
                for library in (transformers, cutaway):
                    for bf16 in (False, True):
                        found, loss = steps(library, Path(folder), task, data, given.steps, bf16)
                        seen.setdefault((library.__name__, bf16), []).extend(found)
                        first[library.__name__, bf16] = loss
        median = {key: statistics.median(values) for key, values in seen.items()}
        theirs, theirs_half = median["transformers", False], median["transformers", True]
        ours, ours_half = median["cutaway", False], median["cutaway", True]
        print(json.dumps({
            "task": task, "size": given.size, "padded positions that are tokens": real / (ROWS * sum(longest)),
            "seconds": {f"{n} {'bf16' if h else 'fp32'}": round(v, 3) for (n, h), v in median.items()},
            "fp32 against fp32": round(theirs / ours, 2), "bf16 against bf16": round(theirs_half / ours_half, 2),
            "bf16 against fp32": round(theirs / ours_half, 2),
            "first loss": {f"{n} {'bf16' if h else 'fp32'}": round(v, 6) for (n, h), v in first.items()},
        }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
