#!/usr/bin/env bash
# transformers 5.23.0: Trainer with fp16_full_eval=True or bf16_full_eval=True turns the model's own weights into 16 bits to
# evaluate, and leaves them so. A call of train() after it, without another word, trains 16-bit weights: with bfloat16 and a
# small learning rate most of them never move; the model that is saved is of 16 bits, too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
cat > "$folder/run.py" <<'PY'
import sys
from importlib.metadata import version

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

config = BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
rows = [{"input_ids": torch.randint(5, 60, (6,)), "labels": i % 2} for i in range(8)]
print(f"transformers {version('transformers')}, eight steps with a learning rate of 1e-6:")
for first in ("nothing", "evaluate"):
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    settings = TrainingArguments(
        sys.argv[1], bf16_full_eval=True, learning_rate=1e-6, lr_scheduler_type="constant", max_steps=8,
        per_device_train_batch_size=8, report_to=[], use_cpu=True, save_strategy="no", logging_strategy="no",
        disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model, settings, train_dataset=rows, eval_dataset=rows)
    if first == "evaluate":
        trainer.evaluate()
    before = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    trainer.train()
    matrix = "bert.encoder.layer.0.intermediate.dense.weight"
    weights = dict(model.named_parameters())[matrix]
    moved = (weights != before[matrix]).float().mean().item()
    print(f"  {first} before train(): {weights.dtype}, {moved:.0%} of one layer's weights moved")
    if first == "evaluate":
        assert weights.dtype == torch.bfloat16 and moved < 0.5, "the behaviour changed"
    else:
        assert weights.dtype == torch.float32 and moved > 0.9, "the behaviour changed"
PY
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" -W ignore "$folder/run.py" "$folder/out"
