"""What a step may be asked for besides: a running average, bfloat16, blocks computed twice, only the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_samples import arguments, furthest, model, rows, weights

import cutaway
from cutaway.errors import CheckpointError, ConfigError
from cutaway.models.lm_heads import loss_only

NAME = "BertForMaskedLM"


def test_the_average_is_what_is_evaluated_saved_and_left(tmp_path: Path) -> None:
    wanted: dict[str, torch.Tensor] = {}
    ours = model(NAME)
    start = weights(ours)

    class Watch(cutaway.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            now = weights(kwargs["model"])
            for name, value in now.items():
                wanted[name] = wanted.get(name, start[name]) * 0.75 + value * 0.25

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            assert furthest(weights(kwargs["model"]), wanted) < 1e-6

    args = arguments(
        tmp_path, max_steps=4, ema_decay=0.75, learning_rate=1e-2, eval_strategy="steps", eval_steps=2,
        save_strategy="steps", save_steps=2,
    )  # fmt: skip
    data = rows(NAME)
    cutaway.Trainer(model=ours, args=args, train_dataset=data, eval_dataset=data, callbacks=[Watch]).train()
    assert furthest(weights(ours), wanted) < 1e-6
    stored = cutaway.BertForMaskedLM.from_pretrained(tmp_path / "checkpoint-4")
    assert furthest(weights(stored), weights(ours)) == 0.0
    plain = cutaway.Trainer(model=model(NAME), args=arguments(tmp_path, max_steps=5), train_dataset=data)
    with pytest.raises(CheckpointError, match="ema_decay"):
        plain.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "LlamaForCausalLM", "T5ForConditionalGeneration"])
def test_blocks_computed_twice_have_the_same_gradients(name: str) -> None:
    batch = cutaway.default_data_collator(rows(name))
    dropout = {"hidden_dropout_prob": 0.3} if name.startswith("Bert") else {}
    found = []
    for twice in (False, True):
        ours = model(name, **dropout).train()
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        handle = ours.base_model.get_submodule("blocks" if name[0] != "T" else "encoder.blocks")[0].attn
        handle.o.register_forward_hook(count)
        if twice:
            ours.gradient_checkpointing_enable()
        torch.manual_seed(5)
        ours(**batch).loss.backward()
        assert calls == 1 + twice
        found.append({n: p.grad for n, p in ours.named_parameters()})
    assert all(torch.equal(found[0][n], g) for n, g in found[1].items())
    ours.gradient_checkpointing_disable()
    with pytest.raises(ConfigError, match="no blocks"):
        type("Own", (cutaway.PreTrainedModel,), {})(cutaway.PretrainedConfig()).gradient_checkpointing_enable()


def test_bfloat16_computes_in_half_and_keeps_weights_whole(tmp_path: Path) -> None:
    losses = []
    for bf16 in (False, True):
        ours = model(NAME)
        args = arguments(tmp_path, max_steps=6, bf16=bf16, learning_rate=5e-3, per_device_train_batch_size=16)
        trainer = cutaway.Trainer(model=ours, args=args, train_dataset=rows(NAME), eval_dataset=rows(NAME))
        trainer.train()
        assert {p.dtype for p in ours.parameters()} == {torch.float32}
        losses.append([e["loss"] for e in trainer.state.log_history[:-1]] + [trainer.evaluate()["eval_loss"]])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1][-1] < losses[1][0]


@pytest.mark.parametrize("name", ["BertForMaskedLM", "GPT2LMHeadModel", "BartForConditionalGeneration"])
def test_only_the_loss_is_the_same_loss(name: str) -> None:
    ours = model(name).train()
    batch = cutaway.default_data_collator(rows(name, pad=ours.config.pad_token_id or 0))
    whole = ours(**batch)
    whole.loss.backward()
    gradients = {n: p.grad.clone() for n, p in ours.named_parameters()}
    ours.zero_grad()
    part = ours(**batch, **loss_only(ours))
    part.loss.backward()
    assert part.loss.item() == pytest.approx(whole.loss.item(), rel=1e-6)
    assert max(float((p.grad - gradients[n]).abs().max()) for n, p in ours.named_parameters()) < 1e-5
    assert part.logits is None
    with cutaway.strict_outputs(), pytest.raises(cutaway.CutawayError, match="logits"):
        _ = part.logits
    assert ours(**batch).logits is not None
    with ours.record("logits") as seen:
        ours(**batch, return_logits=False)
    assert torch.equal(seen["logits"], whole.logits)


def test_metrics_may_follow_batch_by_batch(tmp_path: Path) -> None:
    name = "BertForTokenClassification"
    right: list[Any] = []

    def follow(given: Any, compute_result: bool) -> dict[str, float]:
        right.append((given.predictions.argmax(-1) == given.label_ids)[given.label_ids != -100])
        return {"accuracy": float(np.concatenate(right).mean())} if compute_result else {}

    def whole(given: Any) -> dict[str, float]:
        hits = given.predictions.argmax(-1) == given.label_ids
        return {"accuracy": float(hits[given.label_ids != -100].mean())}

    found = []
    for metric, streams in ((whole, False), (follow, True)):
        args = arguments(tmp_path, per_device_eval_batch_size=5, batch_eval_metrics=streams)
        trainer = cutaway.Trainer(model=model(name), args=args, eval_dataset=rows(name), compute_metrics=metric)
        found.append(trainer.evaluate()["eval_accuracy"])
    assert len(right) == 4
    assert found[0] == pytest.approx(found[1])
