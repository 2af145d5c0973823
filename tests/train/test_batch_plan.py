"""Batches by length, batches by tokens, and texts one after another in a row."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from training_samples import arguments, furthest, model, rows, weights

import cutaway
from cutaway.errors import CheckpointError, InputError
from cutaway.train.batch_plan import Plan, lengths_of, packed
from cutaway.train.dataset import Rows

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=80)


@given(lengths, st.integers(5, 100))
def test_groups_hold_every_text_once_and_not_too_much(given_: list[int], tokens: int) -> None:
    bins = packed(given_, tokens)
    assert sorted(n for b in bins for n in b) == sorted(given_)
    assert all(sum(b) <= tokens or len(b) == 1 for b in bins)
    least = -(-sum(min(n, tokens) for n in given_) // tokens)
    assert len(bins) <= 11 / 9 * least + 4 + sum(n > tokens / 2 for n in given_)


@given(lengths, st.integers(1, 9), st.booleans(), st.integers(0, 3))
def test_an_epoch_has_every_row_once(given_: list[int], size: int, by_tokens: bool, epoch: int) -> None:
    def make() -> Plan:
        return Plan(len(given_), size, 3, lengths=given_, tokens=40 if by_tokens else None)

    plan = make()
    batches = plan.batches(epoch)
    assert sorted(r for b in batches for r in b) == list(range(len(given_)))
    assert len(batches) == plan.count
    assert make().batches(epoch) == batches
    if by_tokens:
        assert all(sum(given_[r] for r in b) <= 40 or len(b) == 1 for b in batches)


def test_rows_of_like_length_come_together_and_by_chance() -> None:
    draw = random.Random(0)
    found = [draw.randrange(1, 500) for _ in range(2000)]
    plan = Plan(len(found), 8, 1, lengths=found)
    spread = [max(found[r] for r in b) - min(found[r] for r in b) for b in plan.batches(0)]
    assert sum(spread) / len(spread) < 15
    assert plan.batches(0) != plan.batches(1)
    longest = [max(found[r] for r in b) for b in plan.batches(0)]
    assert abs(sum(longest[:125]) - sum(longest[125:])) / sum(longest) < 0.1  # not the long ones first


def test_lengths_come_from_a_column_or_the_rows() -> None:
    data = rows("BertForMaskedLM", 5)
    real = [int(r["attention_mask"].sum()) for r in data]
    assert lengths_of(Rows(data), "length", 0) == real
    assert lengths_of(Rows([{**r, "n": 7} for r in data]), "n", 0) == [7] * 5
    assert lengths_of(Rows([{"input_ids": [1, 2, 3]}]), "length", 0) == [3]
    with pytest.raises(InputError, match="row 0 has"):
        lengths_of(Rows([{"text": "a"}]), "length", 0)


@pytest.mark.parametrize("settings", [{"group_by_length": True}, {"per_device_train_batch_tokens": 24}])
def test_a_trainer_uses_the_plan(settings: dict[str, Any], tmp_path: Path) -> None:
    name = "BertForMaskedLM"
    seen: list[int] = []

    def collate(batch: list[Any]) -> Any:
        seen.append(sum(int(r["attention_mask"].sum()) for r in batch))
        return cutaway.default_data_collator(batch)

    args = arguments(tmp_path, num_train_epochs=2, per_device_train_batch_size=4, save_strategy="epoch", **settings)
    trainer = cutaway.Trainer(model=model(name), args=args, data_collator=collate, train_dataset=rows(name))
    out = trainer.train()
    assert len(seen) == out.global_step
    assert sum(seen) == 2 * sum(int(r["attention_mask"].sum()) for r in rows(name))
    if "group_by_length" not in settings:
        assert max(seen) <= 24
    other = cutaway.Trainer(model=model(name), args=args, data_collator=collate, train_dataset=rows(name, seed=9))
    with pytest.raises(CheckpointError, match="length of each row"):
        other.train(resume_from_checkpoint=True)
    args = arguments(tmp_path, max_steps=1, **settings)
    stream = cutaway.Trainer(model=model(name), args=args, train_dataset=lambda: iter(rows(name)))
    with pytest.raises(InputError, match="lengths"):
        stream.train()


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM", "RobertaForCausalLM"])
def test_texts_in_one_row_do_not_see_each_other(name: str, tmp_path: Path) -> None:
    ours = model(name).eval()
    data = rows(name, 6, pad=ours.config.pad_token_id or 0)
    flat = cutaway.DataCollatorWithFlattening()(data)
    if name.startswith("Roberta"):
        flat["position_ids"] += ours.config.pad_token_id + 1
    with ours.record("blocks.*.attn.pattern", "blocks.1.resid") as seen:
        together = ours(**flat)
    assert together.get("past_key_values") is None
    start = 0
    for row in data:
        n = int(row["attention_mask"].sum())
        with ours.record("blocks.*.attn.pattern", "blocks.1.resid") as own:
            alone = ours(row["input_ids"][None, :n])
        span = slice(start, start + n)
        assert torch.allclose(together.logits[0, span], alone.logits[0], atol=1e-5)
        assert torch.allclose(seen["blocks.1.resid"][0, span], own["blocks.1.resid"][0], atol=1e-5)
        pattern = seen["blocks.1.attn.pattern"][0, :, span]
        assert torch.allclose(pattern[..., span], own["blocks.1.attn.pattern"][0], atol=1e-6)
        assert pattern.sum(-1).allclose(torch.ones(()))  # nothing is left for other texts
        start += n
    if name == "LlamaForCausalLM":
        ours.save_pretrained(tmp_path)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.allclose(theirs(**flat, use_cache=False).logits, together.logits, atol=1e-5)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM"])
def test_packed_and_padded_train_alike(name: str, tmp_path: Path) -> None:
    found = []
    for collate, settings in (
        (cutaway.default_data_collator, {}),
        (cutaway.DataCollatorWithFlattening(), {}),
        (cutaway.DataCollatorWithFlattening(), {"per_device_train_batch_tokens": 60, "gradient_accumulation_steps": 9}),
    ):
        ours = model(name)
        args = arguments(
            tmp_path, max_steps=1, per_device_train_batch_size=16, optim="sgd", learning_rate=0.05, **settings
        )
        trainer = cutaway.Trainer(model=ours, args=args, data_collator=collate, train_dataset=rows(name))
        trainer.train()
        found.append((weights(ours), trainer.state.log_history[0]))
    for other, told in found[1:]:
        assert furthest(found[0][0], other) < 1e-6
        assert told["loss"] == pytest.approx(found[0][1]["loss"], rel=1e-5)
        assert told["grad_norm"] == pytest.approx(found[0][1]["grad_norm"], rel=1e-4)


def test_flattening_says_what_does_not_fit() -> None:
    collate = cutaway.DataCollatorWithFlattening()
    batch = collate([{"input_ids": [5, 6], "labels": [1, 2]}, {"input_ids": [7]}][:1])
    assert batch["labels"].tolist() == [[-100, 2]]
    with pytest.raises(InputError, match="labels but"):
        collate([{"input_ids": [5, 6], "labels": [1]}])
    with pytest.raises(InputError, match="no examples"):
        collate([])
