"""What upstream's isinstance says of our objects, and that they stay what they are."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

import cutaway
from cutaway.hub.upstream_types import KnownUpstream

BASES = {
    "tokenizer": "PreTrainedTokenizerBase",
    "model": "PreTrainedModel",
    "config": "PretrainedConfig",
    "pipeline": "Pipeline",
    "encoding": "BatchEncoding",
    "generation": "GenerationConfig",
}
NAMES = {
    "tokenizer": "PreTrainedTokenizerFast",
    "model": "LlamaForCausalLM",
    "config": "LlamaConfig",
    "pipeline": "TextClassificationPipeline",
    "encoding": "BatchEncoding",
    "generation": "GenerationConfig",
}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("types")
    config = cutaway.LlamaConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=102
    )
    found = cutaway.pipeline("text-classification", model=str(tiny.classifier(folder)))
    tokenizer = found.tokenizer
    return {
        "tokenizer": tokenizer, "model": cutaway.LlamaForCausalLM(config).eval(), "config": config, "pipeline": found,
        "encoding": tokenizer("a good film"), "generation": cutaway.GenerationConfig(max_new_tokens=2),
    }  # fmt: skip


@pytest.mark.parametrize("kind", BASES)
def test_upstream_takes_them_for_its_own(ours: dict[str, Any], kind: str) -> None:
    import transformers

    thing = ours[kind]
    assert isinstance(thing, getattr(transformers, BASES[kind]))
    assert isinstance(thing, getattr(transformers, NAMES[kind]))
    assert not isinstance(thing, (transformers.GPT2LMHeadModel, transformers.GPT2Config, transformers.FillMaskPipeline))
    assert isinstance(thing, getattr(cutaway, NAMES[kind]))
    assert isinstance(thing, thing.__class__)
    assert issubclass(type(thing), thing.__class__)
    assert thing.__class__.__name__ == type(thing).__name__
    assert thing.__class__.__module__ == type(thing).__module__
    assert type(thing).__module__.startswith("cutaway.")


def test_the_class_that_is_answered_makes_ours(ours: dict[str, Any], tmp_path: Path) -> None:
    import transformers

    assert issubclass(ours["config"].__class__, transformers.PretrainedConfig)
    assert type(ours["config"].__class__(hidden_size=8)) is cutaway.LlamaConfig
    assert type(ours["model"].__class__(ours["config"])) is cutaway.LlamaForCausalLM
    ours["model"].save_pretrained(tmp_path)
    again = ours["model"].__class__.from_pretrained(tmp_path)
    assert type(again) is cutaway.LlamaForCausalLM
    assert pickle.loads(pickle.dumps(ours["model"].__class__)) is cutaway.LlamaForCausalLM


@pytest.mark.parametrize("kind", ["tokenizer", "model", "config", "encoding", "generation"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_copies_and_pickles_stay_ours(ours: dict[str, Any], kind: str, protocol: int) -> None:
    import transformers

    assert transformers.PreTrainedModel
    thing = ours[kind]
    for again in (copy.copy(thing), copy.deepcopy(thing), pickle.loads(pickle.dumps(thing, protocol))):
        assert type(again) is type(thing)
    if kind == "model":
        ids = torch.tensor([[5, 6, 7]])
        assert torch.equal(pickle.loads(pickle.dumps(thing, protocol))(ids).logits, thing(ids).logits)
    if kind == "encoding":
        assert pickle.loads(pickle.dumps(thing, protocol)).tokens() == thing.tokens()


def test_a_class_derived_from_the_answer_is_made_of_ours(ours: dict[str, Any]) -> None:
    """FSDP and parametrizations set `__class__` to a class that they derive from the present one."""

    class Sharded:
        def shards(self) -> int:
            return 2

    model = copy.deepcopy(ours["model"])
    import transformers

    model.__class__ = type(f"FSDP{model.__class__.__name__}", (Sharded, model.__class__), {"made": True})
    assert type(model).__name__ == "FSDPLlamaForCausalLM"
    assert model.shards() == 2
    assert model.made
    assert isinstance(model, transformers.PreTrainedModel)
    assert transformers.PreTrainedModel not in type(model).__mro__
    model.__class__ = cutaway.LlamaForCausalLM(ours["config"]).__class__
    assert type(model) is cutaway.LlamaForCausalLM


def test_a_users_class_counts_too(ours: dict[str, Any]) -> None:
    import transformers

    class Mine(cutaway.PreTrainedModel):
        config_class = cutaway.LlamaConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.layer = nn.Linear(2, 2)

    assert isinstance(Mine(ours["config"]), transformers.PreTrainedModel)
    assert not isinstance(Mine(ours["config"]), transformers.LlamaPreTrainedModel)


def test_every_class_has_an_answer() -> None:
    """Upstream's class of the same name and ours have bases that agree."""
    import transformers

    count = 0
    for name in cutaway.__all__:
        kind, theirs = getattr(cutaway, name), getattr(transformers, name, None)
        if not (isinstance(kind, type) and issubclass(kind, KnownUpstream) and isinstance(theirs, type)):
            continue
        slow = "Tokenizer" in name and not issubclass(theirs, transformers.PreTrainedTokenizerFast)
        if name == kind.__name__ and not slow and not inspect.isabstract(kind):
            blank = kind.__new__(kind)
            assert isinstance(blank, theirs), name
            count += 1
    assert count > 300


def test_without_upstream_nothing_is_there() -> None:
    code = (
        "import sys, cutaway; c = cutaway.BertConfig(); assert c.__class__ is type(c) is cutaway.BertConfig; "
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
