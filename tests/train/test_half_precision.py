"""Evaluations on weights of 16 bits leave the weights as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_samples import arguments, furthest, model, rows, weights

import cutaway
from cutaway.errors import ConfigError

NAME = "BertForSequenceClassification"


@pytest.mark.parametrize(("setting", "dtype"), [("fp16_full_eval", torch.float16), ("bf16_full_eval", torch.bfloat16)])
def test_evaluations_outside_a_training_are_on_16_bits(tmp_path: Path, setting: str, dtype: Any) -> None:
    seen: list[torch.dtype] = []
    ours = model(NAME)
    ours.bert.embeddings.word_embeddings.register_forward_hook(lambda m, i, o: seen.append(m.weight.dtype))
    more: dict[str, Any] = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, setting: True}
    trainer = cutaway.Trainer(
        model=ours, args=arguments(tmp_path, **more), train_dataset=rows(NAME, 8), eval_dataset=rows(NAME, 16)
    )
    trainer.train()
    assert set(seen) == {torch.float32}
    before, exact = weights(ours), trainer.predict(rows(NAME, 16))
    trainer.args.fp16_full_eval = trainer.args.bf16_full_eval = False
    full = trainer.predict(rows(NAME, 16))
    assert dtype in seen
    apart = abs(exact.predictions - full.predictions).max()
    assert 0 < apart < 0.1 * abs(full.predictions).max()
    assert furthest(before, weights(ours)) == 0.0 and ours.dtype == torch.float32
    plain = model(NAME)
    plain.load_state_dict(before)
    again = cutaway.Trainer(model=plain, args=arguments(tmp_path)).predict(rows(NAME, 16))
    assert (again.predictions == full.predictions).all()


def test_one_precision_at_a_time() -> None:
    with pytest.raises(ConfigError, match="bf16_full_eval"):
        cutaway.TrainingArguments(fp16_full_eval=True, bf16_full_eval=True)
