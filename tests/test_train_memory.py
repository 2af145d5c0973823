"""What a training does not do: hold on to what was evaluated, or work more the longer it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from training_samples import arguments, model, rows

import cutaway

NAME = "BertForSequenceClassification"
# The vocabulary is BERT's: kept logits would be 19 GB. What 1,000 texts add is in docs/log.md; it is no more.
EVALUATION = """
import resource, sys
import torch, cutaway

torch.set_num_threads(1)
vocabulary, count = 30522, 300
config = cutaway.BertConfig(
    vocab_size=vocabulary, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
    max_position_embeddings=512,
)
ids = torch.randint(5, vocabulary, (count, 512))
labels = ids.masked_fill(torch.rand(count, 512) > 0.15, -100)
rows = [{"input_ids": i, "labels": l} for i, l in zip(ids, labels)]
args = cutaway.TrainingArguments(sys.argv[1], disable_tqdm=True, use_cpu=True)
trainer = cutaway.Trainer(model=cutaway.BertForMaskedLM(config), args=args, eval_dataset=rows)
held = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = held()
assert trainer.evaluate()["eval_loss"] > 9
print(held() - before)
"""


def test_an_evaluation_of_masked_texts_adds_less_than_500_mb(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", EVALUATION, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500


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
