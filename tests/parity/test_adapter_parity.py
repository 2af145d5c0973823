"""Adapters in PEFT's files, both ways: what one library writes, the other loads, with the same logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import cutaway
from cutaway import LoraConfig

SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
GPT2 = {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20}
T5 = {"vocab_size": 60, "d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 24}
# PEFT itself asks transformers by an old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
# class, config, PEFT's targets, ours, a head that both can save in full
CASES: dict[str, tuple[str, str, dict[str, Any], list[str], list[str], str]] = {
    "bert": (
        "BertForSequenceClassification",
        "BertConfig",
        {**SMALL, "max_position_embeddings": 20},
        ["query", "output.dense"],
        ["blocks.*.attn.q", "blocks.*.attn.o", "blocks.*.mlp.down"],
        "classifier",
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {**GPT2, "bos_token_id": 1, "eos_token_id": 2},
        ["c_attn", "c_fc"],
        ["blocks.*.attn.v", "blocks.*.mlp"],
        "",
    ),
    "llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {**SMALL, "num_key_value_heads": 1, "pad_token_id": 0, "tie_word_embeddings": False},
        ["q_proj", "v_proj", "down_proj"],
        ["blocks.*.attn", "blocks.0.mlp.gate"],
        "lm_head",
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {**T5, "decoder_start_token_id": 0},
        ["q", "v", "wo"],
        ["*.blocks.*.attn.q", "decoder.blocks.*.cross", "encoder.blocks.1.mlp"],
        "",
    ),
}
KINDS: dict[str, dict[str, bool]] = {"plain": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}
WHICH = [("bert", "plain"), ("bert", "rslora"), *((name, "dora") for name in CASES), ("gpt2", "plain"), ("t5", "plain")]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny models, as transformers saves them."""
    found = {}
    for name, (cls, config, fields, *_) in CASES.items():
        torch.manual_seed(0)
        found[name] = tmp_path_factory.mktemp(name)
        getattr(transformers, cls)(getattr(transformers, config)(**fields)).save_pretrained(found[name])
    return found


def pair(name: str, folder: Path) -> tuple[Any, Any]:
    cls = CASES[name][0]
    return getattr(transformers, cls).from_pretrained(folder).eval(), getattr(cutaway, cls).from_pretrained(folder)


def batch(name: str) -> dict[str, Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(3, 60, (3, 7))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask} | ({"decoder_input_ids": ids[:, :4]} if name == "t5" else {})


def disturb(model: Any) -> None:
    """Weights that change something: B begins at 0."""
    torch.manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.2)


@torch.no_grad()
def assert_same(theirs: Any, ours: Any, name: str) -> None:
    given = batch(name)
    a, b = theirs(**given).logits, ours(**given).logits
    if a.dim() == 3 and name != "t5":
        a, b = a[given["attention_mask"] != 0], b[given["attention_mask"] != 0]
    torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "kind"), WHICH)
def test_their_adapter_loads_here(name: str, kind: str, bases: dict[str, Path], tmp_path: Path) -> None:
    import peft

    theirs, ours = pair(name, bases[name])
    *_, targets, _, head = CASES[name]
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=targets, modules_to_save=[head] if head else None,
        fan_in_fan_out=name == "gpt2", **KINDS[kind],
    )  # fmt: skip
    theirs = peft.get_peft_model(theirs, config).eval()
    disturb(theirs)
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        base = ours(**batch(name)).logits
    ours.load_adapter(tmp_path)
    assert_same(theirs, ours, name)
    changed = ours(**batch(name)).logits
    assert (changed - base).abs().max() > 1e-3
    ours.merge_adapter()
    torch.testing.assert_close(ours(**batch(name)).logits, changed, atol=1e-5, rtol=1e-5)
    ours.unmerge_adapter()
    assert torch.equal(ours(**batch(name)).logits, changed)
    assert torch.equal(ours(**batch(name), adapters=None).logits, base)


@pytest.mark.parametrize(("name", "kind"), WHICH)
def test_our_adapter_loads_there(name: str, kind: str, bases: dict[str, Path], tmp_path: Path) -> None:
    import peft

    theirs, ours = pair(name, bases[name])
    *_, targets, head = CASES[name]
    saved = [head] if head else None
    config = LoraConfig(r=3, lora_alpha=5, target_modules=targets, modules_to_save=saved, **KINDS[kind])
    before = ours(**batch(name)).logits
    ours.add_adapter(config)
    torch.testing.assert_close(ours(**batch(name)).logits, before, atol=1e-6, rtol=1e-5)
    disturb(ours)
    ours.save_adapter(tmp_path)
    assert (ours(**batch(name)).logits - before).abs().max() > 1e-3
    assert_same(peft.PeftModel.from_pretrained(theirs, str(tmp_path)).eval(), ours, name)
    again = pair(name, bases[name])[1]
    again.load_adapter(tmp_path)
    torch.testing.assert_close(again(**batch(name)).logits, ours(**batch(name)).logits, atol=1e-6, rtol=1e-5)


def test_patterns_of_alpha_and_rank(bases: dict[str, Path], tmp_path: Path) -> None:
    import peft

    theirs, ours = pair("bert", bases["bert"])
    config = peft.LoraConfig(
        r=3, target_modules=["query", "key"], alpha_pattern={"key": 20}, rank_pattern={"layer.0.attention.self.key": 2}
    )
    theirs = peft.get_peft_model(theirs, config).eval()
    disturb(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    ours.load_adapter(tmp_path / "theirs")
    assert_same(theirs, ours, "bert")
    ours.save_adapter(tmp_path / "ours")
    base = pair("bert", bases["bert"])[0]
    assert_same(peft.PeftModel.from_pretrained(base, str(tmp_path / "ours")).eval(), ours, "bert")


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
def test_a_learned_prompt_of_peft_is_read_when_generating(bases: dict[str, Path]) -> None:
    """PEFT puts its own `prepare_inputs_for_generation` in the model's place, which gives vectors for ids."""
    import peft

    ids = torch.tensor([[7, 8, 9], [9, 8, 7]])
    settings = {
        "max_new_tokens": 4,
        "do_sample": False,
        "num_beams": 2,
        "num_return_sequences": 2,
        "eos_token_id": None,
    }
    found, plain = [], None
    for library in (transformers, cutaway):
        model = library.LlamaForCausalLM.from_pretrained(bases["llama"])
        plain = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        torch.manual_seed(0)
        prompted = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
        torch.nn.init.normal_(prompted.prompt_encoder["default"].embedding.weight, generator=torch.manual_seed(1))
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **settings}
        found.append(prompted.generate(**given))
        whole = prompted.generate(**given, return_dict_in_generate=True)
        assert torch.equal(whole.sequences, found[-1])
    assert found[0].tolist() == found[1].tolist()
    assert found[1].tolist() != plain.tolist()
