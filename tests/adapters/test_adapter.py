"""Adapters: rows with adapters of their own, packed weights left alone, training, and files that are wrong."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import cutaway
from cutaway import LoraConfig, Trainer, TrainingArguments
from cutaway.errors import CheckpointError, ConfigError, CutawayError, InputError

SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def bert(**fields: Any) -> Any:
    torch.manual_seed(0)
    return cutaway.BertForSequenceClassification(
        cutaway.BertConfig(**SMALL, max_position_embeddings=300, **fields)
    ).eval()


def gpt2() -> Any:
    torch.manual_seed(0)
    config = cutaway.GPT2Config(
        vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=300, bos_token_id=1, eos_token_id=2
    )
    return cutaway.GPT2LMHeadModel(config).eval()


def t5() -> Any:
    torch.manual_seed(0)
    config = cutaway.T5Config(
        vocab_size=60, d_model=16, num_layers=2, num_heads=2, d_kv=8, d_ff=24, decoder_start_token_id=0
    )
    return cutaway.T5ForConditionalGeneration(config).eval()


def with_two(model: Any, **second: Any) -> Any:
    """The model with adapters a and b, which differ in rank, layers and kind."""
    model.add_adapter(LoraConfig(r=2, target_modules="all-linear"), "a")
    model.add_adapter(LoraConfig(r=3, use_dora=True, **second), "b")
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.adapters.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return model


def texts(lengths: list[int]) -> dict[str, Tensor]:
    torch.manual_seed(2)
    ids = torch.randint(3, 60, (len(lengths), max(lengths)))
    return {"input_ids": ids, "attention_mask": (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()}


LAYOUTS = {"same": [6, 6, 6, 6], "small": [6, 2, 4, 6], "packed": [50, 7, 90, 31], "long": [280, 7, 90, 31]}


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("make", [bert, gpt2, t5])
def test_each_row_is_as_alone(make: Any, layout: str) -> None:
    model = with_two(make(), modules_to_save=["classifier"] if make is bert else None)
    names, batch = ["a", None, "b", "a"], texts(LAYOUTS[layout])
    if make is t5:
        batch["decoder_input_ids"] = batch["input_ids"][:, :5]
    together = model(**batch, adapters=names).logits
    for i, name in enumerate(names):
        n = LAYOUTS[layout][i]
        alone = {k: v[i : i + 1] if k.startswith("decoder") else v[i : i + 1, :n] for k, v in batch.items()}
        model.set_adapter(name)
        expected = model(**alone).logits[0]
        torch.testing.assert_close(together[i][: len(expected)], expected, atol=1e-5, rtol=1e-5)
        model.set_adapter("a")
        assert torch.equal(model(**alone, adapters=name).logits[0], expected)
    assert model.active_adapter == "a"


@torch.no_grad()
def test_rows_of_choices_and_of_a_cache() -> None:
    torch.manual_seed(0)
    choice = with_two(cutaway.BertForMultipleChoice(cutaway.BertConfig(**SMALL)).eval())
    ids = torch.randint(3, 60, (2, 3, 5))
    both = choice(ids, adapters=["a", "b"]).logits
    for i, name in enumerate("ab"):
        torch.testing.assert_close(both[i : i + 1], choice(ids[i : i + 1], adapters=name).logits, atol=1e-5, rtol=1e-5)
    model, batch = with_two(gpt2()), texts([6, 4])
    first = model(**batch, adapters=["a", "b"], use_cache=True)
    step = model(torch.tensor([[7], [9]]), past_key_values=first.past_key_values, adapters=["a", "b"]).logits[1, 0]
    whole = torch.cat((batch["input_ids"][1:, :4], torch.tensor([[9]])), 1)
    torch.testing.assert_close(step, model(whole, adapters="b").logits[0, -1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_base_is_not_packed_again() -> None:
    model, batch = bert(), texts([6, 6])
    base = model(**batch).logits
    attention, up = model.bert.blocks[0].attn, model.bert.blocks[0].mlp.up
    before = [attention.packed.weight, attention.o.packed.weight, up.packed.weight]
    model = with_two(model)
    assert not torch.equal(model(**batch).logits, base)
    after = [attention.packed.weight, attention.o.packed.weight, up.packed.weight]
    assert all(a is b for a, b in zip(before, after, strict=True)) and attention.q.packed.weight is None
    assert torch.equal(model(**batch, adapters=None).logits, base)
    model.remove_adapter("a")
    model.remove_adapter("b")
    assert torch.equal(model(**batch).logits, base) and model.bert.blocks[0].attn.q.site is None
    assert all(p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_recording_changes_nothing_and_heads_add_up() -> None:
    model, batch = with_two(bert()), texts([6, 6])
    plain = model(**batch, adapters=["a", "b"]).logits
    heads = [f"blocks.1.attn.head.{h}.out" for h in range(2)]
    with model.record("blocks.*.attn.pattern", "blocks.*.mlp.pre", "blocks.1.attn.out", *heads) as seen:
        assert torch.equal(model(**batch, adapters=["a", "b"]).logits, plain)
    model.set_adapter("a")
    with model.record("blocks.1.attn.out", *heads) as seen:
        model(**batch)
    total = sum(seen[h] for h in heads) + model.bert.blocks[1].attn.o.bias
    torch.testing.assert_close(total, seen["blocks.1.attn.out"], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_bytes_copies_and_saving(tmp_path: Path) -> None:
    model, batch = with_two(bert()), texts([6, 4])
    found = model(**batch).logits
    assert torch.equal(copy.deepcopy(model)(**batch).logits, found)
    model.save_pretrained(tmp_path)  # the base
    again = cutaway.BertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again(**batch).logits, model(**batch, adapters=None).logits)
    model.merge_adapter("b")
    merged = model(**batch).logits
    torch.testing.assert_close(merged, found, atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path)
    assert torch.equal(cutaway.BertForSequenceClassification.from_pretrained(tmp_path)(**batch).logits, merged)
    with pytest.raises(ConfigError, match="unmerge_adapter"):
        model.set_adapter("a")


def rows(n: int = 24) -> list[dict[str, Any]]:
    return [{"input_ids": [3, 10 + i % 7, 20 + i % 2, 4], "attention_mask": [1] * 4, "label": i % 2} for i in range(n)]


def trainer(folder: Path, steps: int, *, resumes: bool = False, **more: Any) -> Trainer:
    model = bert()
    cutaway.set_seed(3)
    targets = ["blocks.*.attn.q", "blocks.1.mlp"]
    model.add_adapter(
        LoraConfig(r=2, lora_dropout=0.2, use_dora=True, target_modules=targets, modules_to_save=["logits"]), "a"
    )
    args = TrainingArguments(
        output_dir=str(folder), max_steps=steps, save_steps=2, per_device_train_batch_size=4, learning_rate=1e-2,
        disable_tqdm=True, use_cpu=True, **more,
    )  # fmt: skip
    return Trainer(model=model, args=args, train_dataset=rows())


def test_training_saves_the_adapter_only_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", 6, gradient_checkpointing=True)
    base = {k: v.clone() for k, v in whole.model.bert.state_dict().items()}
    whole.train()
    assert all(torch.equal(v, base[k]) for k, v in whole.model.bert.state_dict().items())
    names = {p.name for p in (tmp_path / "whole" / "checkpoint-2").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names and "model.safetensors" not in names

    class Stop(cutaway.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 5:
                raise KeyboardInterrupt

    part = trainer(tmp_path / "part", 6)
    part.add_callback(Stop)
    with pytest.raises(KeyboardInterrupt):
        part.train()
    resumed = trainer(tmp_path / "part", 6)
    resumed.train(resume_from_checkpoint=True)
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    fresh = bert()
    fresh.load_adapter(tmp_path / "whole" / "checkpoint-6")
    given = texts([4, 3])
    with torch.no_grad():
        assert torch.equal(fresh(**given).logits, whole.model(**given).logits)
    other = trainer(tmp_path / "part", 6)
    other.model.remove_adapter("a")
    with pytest.raises(CheckpointError, match="add_adapter"):
        other.train(resume_from_checkpoint=True)


def test_rates_by_address_reach_adapters(tmp_path: Path) -> None:
    from cutaway.train.optimizer import make_optimizer

    held = trainer(tmp_path, 1, learning_rates={"blocks.*.attn": 1e-4, "logits": 1e-3})
    groups = {g["lr"]: len(g["params"]) for g in make_optimizer(held.model, held.args).param_groups}
    assert groups.keys() == {1e-2, 1e-4, 1e-3}


def test_the_built_in_model_takes_adapters(tmp_path: Path) -> None:
    model = cutaway.AutoModelForSequenceClassification.from_pretrained("cutaway/sentiment")
    model.add_adapter(LoraConfig(target_modules="all-linear"))
    assert 0 < model.num_parameters(only_trainable=True) < model.num_parameters() / 4
    model.save_adapter(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "cutaway/sentiment"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"target_modules": ["blocks.*.attn.qq"]}, r"blocks\.\*\.attn\.qq.*Did you mean .*attn\.q"),
        ({"target_modules": ["blocks.9"]}, "blocks.9"),
        ({"modules_to_save": ["clasifier"]}, "'classifier'"),
        ({"r": 0}, "r is 0"),
        ({"lora_alpha": "big"}, "lora_alpha is 'big'"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"target_modules": [3]}, "target_modules"),
        ({"use_dora": "yes"}, "use_dora"),
    ],
)
def test_wrong_configs_name_the_field(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        bert().add_adapter(LoraConfig(**config))


def test_wrong_names_and_rows() -> None:
    model, batch = with_two(bert()), texts([4, 4])
    with pytest.raises(ConfigError, match=r"no adapter 'c'.*'a', 'b'"):
        model.set_adapter("c")
    with pytest.raises(ConfigError, match="already"):
        model.add_adapter(LoraConfig(), "a")
    with pytest.raises(ConfigError, match="adapter_name"):
        model.add_adapter(LoraConfig(), "a.b")
    with pytest.raises(InputError, match="3 names, but the batch has 2"):
        model(**batch, adapters=["a", "b", None])
    with pytest.raises(InputError, match="3 names, but the batch has 2"):
        with_two(gpt2()).generate(batch["input_ids"], adapters=["a", "b", None])
    assert with_two(gpt2()).generate(batch["input_ids"], adapters="a", max_new_tokens=2).shape == (2, 6)
    with pytest.raises(ConfigError, match="no adapter is merged"):
        model.unmerge_adapter()
    tied = gpt2()
    tied.add_adapter(LoraConfig(target_modules=["lm_head"]))
    with pytest.raises(ConfigError, match="tied"):
        tied.merge_adapter()


def saved(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    model = bert()
    model.add_adapter(LoraConfig(r=2, modules_to_save=["classifier"]))
    model.save_adapter(folder)
    return json.loads((folder / "adapter_config.json").read_text()), load_file(folder / "adapter_model.safetensors")


FRONT = "base_model.model.bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("fields", "tensors", "said"),
    [
        ({"peft_type": "IA3"}, {}, "peft_type"),
        ({"bias": "all"}, {}, "bias"),
        ({"lora_bias": True}, {}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, {}, "init_lora_weights"),
        ({"lora_alpha": -1}, {}, "lora_alpha is -1"),
        ({"alpha_pattern": {"(a+)+$": 3}}, {}, "alpha_pattern"),
        ({"alpha_pattern": [3]}, {}, "alpha_pattern"),
        ({"use_dora": True}, {}, "use_dora"),
        ({}, {f"{FRONT}.lora_A.weight": None}, "has .'B'"),
        ({}, {f"{FRONT}.lora_A.weight": torch.zeros(2, 9)}, r"\[2, 9\].*\[2, 16\]"),
        ({}, {f"{FRONT}.lora_A.weight": torch.zeros(0, 16)}, "rank"),
        ({}, {f"{FRONT}.lora_B.weight": torch.zeros(16, 3)}, r"\[16, 3\].*\[16, 2\]"),
        ({}, {f"{FRONT}.lora_B.weight": torch.zeros(16, 2, dtype=torch.int8)}, "int8"),
        ({}, {f"{FRONT}.lora_embedding_A": torch.zeros(2, 2)}, "not built"),
        ({}, {"bert.x.lora_A.weight": torch.zeros(2, 2)}, "does not begin"),
        ({}, {f"{FRONT}y.lora_A.weight": torch.zeros(2, 16), f"{FRONT}y.lora_B.weight": torch.zeros(16, 2)}, "queryy"),
        ({}, {"base_model.model.classifier.weight": torch.zeros(3, 16)}, r"\[3, 16\].*\[2, 16\]"),
        ({}, {"base_model.model.classifier.bias": None}, "classifier is saved with"),
    ],
)
def test_wrong_files_are_one_clear_error(
    fields: dict[str, Any], tensors: dict[str, Tensor | None], said: str, tmp_path: Path
) -> None:
    config, held = saved(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | fields))
    found = {k: v for k, v in (held | tensors).items() if v is not None}
    save_file(found, tmp_path / "adapter_model.safetensors")
    model = bert()
    with pytest.raises(CheckpointError, match=said):
        model.load_adapter(tmp_path)
    assert model.adapter_names == [] and all(p.requires_grad for p in model.parameters())


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(CutawayError, match=r"adapter_config\.json"):
        bert().load_adapter(tmp_path)
    saved(tmp_path)
    whole = (tmp_path / "adapter_model.safetensors").read_bytes()
    (tmp_path / "adapter_model.safetensors").write_bytes(whole[:-7])
    with pytest.raises(CheckpointError, match="truncated"):
        bert().load_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="neither"):
        bert().load_adapter(tmp_path)
