"""Weights by address: what is frozen, and how fast the rest learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_samples import arguments, model, rows

import cutaway
from cutaway.errors import ConfigError
from cutaway.train.optimizer import make_optimizer
from cutaway.train.parameter_groups import ParameterAddresses

NAME = "BertForSequenceClassification"


def test_patterns_name_beginnings_ranges_and_the_head() -> None:
    places = ParameterAddresses(model(NAME, num_hidden_layers=4))
    assert {n.split(".")[1] for n in places.matching("blocks.1-2")} == {"1", "2"}
    assert places.matching("blocks.*.attn.q.bias") == [f"blocks.{i}.attn.q.bias" for i in range(4)]
    assert places.matching("logits") == ["classifier.bias", "classifier.weight"]
    assert set(places.matching("embed")) == {n for n in places.names if n.startswith("embed.")}
    with pytest.raises(ConfigError, match=r"blocks\.7.*Did you mean"):
        places.matching("blocks.7")
    tied = ParameterAddresses(model("GPT2LMHeadModel"))
    assert "embed.tokens.weight" in tied.names
    assert not any(n.startswith("lm_head") for n in tied.names)


def test_a_frozen_weight_does_not_move(tmp_path: Path) -> None:
    ours = model(NAME)
    before = {name: p.detach().clone() for name, p in ParameterAddresses(ours).names.items()}
    args = arguments(tmp_path, max_steps=2, learning_rate=1e-2, weight_decay=0.1, freeze=["embed", "blocks.0"])
    cutaway.Trainer(model=ours, args=args, train_dataset=rows(NAME)).train()
    moved = {name for name, p in ParameterAddresses(ours).names.items() if not torch.equal(p, before[name])}
    assert {n for n in moved if not n.endswith("attn.k.bias")} == {
        n
        for n in ParameterAddresses(ours).names
        if not n.startswith(("embed.", "blocks.0.")) and not n.endswith("attn.k.bias")
    }


@pytest.mark.parametrize("name", [NAME, "T5ForConditionalGeneration"])
def test_rates_fall_with_the_depth_and_a_pattern_goes_before(name: str, tmp_path: Path) -> None:
    ours = model(name)
    args = arguments(
        tmp_path, learning_rate=1.0, weight_decay=0.1, layer_lr_decay=0.5, learning_rates={"*.1.attn.k": 7.0,
        "blocks.1.attn.k" if name == NAME else "encoder.blocks.1.attn.k": 9.0, "logits": 3.0} if name == NAME else {},
    )  # fmt: skip
    optimizer = make_optimizer(ours, args)
    names = {id(p): n for n, p in ParameterAddresses(ours).names.items()}
    rate = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    if name == NAME:
        assert rate["embed.tokens.weight"] == 0.125
        assert [rate[f"blocks.{i}.mlp.up.weight"] for i in (0, 1)] == [0.25, 0.5]
        assert rate["blocks.1.attn.k.weight"] == 9.0
        assert rate["classifier.weight"] == 3.0
        assert rate["pooler.dense.weight"] == optimizer.param_groups[0]["lr"] == 1.0
    else:
        order = ["encoder.blocks.0", "encoder.blocks.1", "decoder.blocks.0", "decoder.blocks.1"]
        assert [rate[f"{b}.attn.q.weight"] for b in order] == [0.0625, 0.125, 0.25, 0.5]
    decays = {names[id(p)]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for n, p in ParameterAddresses(ours).names.items():  # T5's table of distances is a bias
        assert (decays[n] == 0.1) == (p.dim() > 1 and "relative" not in n)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adafactor", "adagrad", "rmsprop", "sgd"])
def test_every_optimizer_learns(optim: str, tmp_path: Path) -> None:
    ours = model(NAME)
    args = arguments(tmp_path, max_steps=8, optim=optim, learning_rate=5e-2 if optim == "sgd" else 1e-2,
                     per_device_train_batch_size=16)  # fmt: skip
    trainer = cutaway.Trainer(model=ours, args=args, train_dataset=rows(NAME))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]


def test_what_has_no_blocks_or_an_optimizer_of_its_own_is_refused(tmp_path: Path) -> None:
    line = torch.nn.Linear(2, 1)
    with pytest.raises(ConfigError, match="layer_lr_decay"):
        make_optimizer(line, arguments(tmp_path, layer_lr_decay=0.9))
    ours: Any = model(NAME)
    given = torch.optim.SGD(ours.parameters(), lr=0.1)
    args = arguments(tmp_path, layer_lr_decay=0.9)
    with pytest.raises(ConfigError, match="optimizer of your own"):
        cutaway.Trainer(model=ours, args=args, train_dataset=rows(NAME), optimizers=(given, None)).train()
    with pytest.raises(ConfigError, match="gradient_checkpointing"):
        cutaway.Trainer(model=line, args=arguments(tmp_path, gradient_checkpointing=True), train_dataset=[{}]).train()


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "ModernBertForMaskedLM"])
def test_layers_published_as_one_are_one_parameter_of_the_optimizer(name: str, tmp_path: Path) -> None:
    ours = model(name)
    groups = make_optimizer(ours, arguments(tmp_path, weight_decay=0.1)).param_groups
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held)) and set(held) == {id(p) for p in ours.parameters()}
    places = ParameterAddresses(ours).names
    q, k = "blocks.1.attn.q.weight", "blocks.1.attn.k.weight"
    assert places[q] is places[k]
    # a rate for a part of it takes it apart, into parameters that each stand in one group
    apart = make_optimizer(ours, arguments(tmp_path, weight_decay=0.1, learning_rates={"blocks.1.attn.q": 1.0}))
    held = [id(p) for group in apart.param_groups for p in group["params"]]
    assert len(held) == len(set(held))
    places = ParameterAddresses(ours).names
    rate = {id(p): group["lr"] for group in apart.param_groups for p in group["params"]}
    assert rate[id(places[q])] == 1.0 != rate[id(places[k])]
