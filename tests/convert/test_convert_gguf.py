"""GGUF that we write: read again it is the same model, for every family that GGUF has a form of; or it is refused."""

import json
import math

import gguf
import pytest
import tiny
import torch
import transformers

from cutaway import AutoModelForCausalLM, AutoTokenizer
from cutaway.checkpoint.gguf_header import read_header
from cutaway.checkpoint.gguf_names import DIALECTS
from cutaway.checkpoint.gguf_write import FORMATS, tensor_type
from cutaway.convert import to_gguf
from cutaway.errors import ConfigError, InputError, TokenizerError

SMALL = {
    "vocab_size": 257, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 96, "initializer_range": 0.3, "bos_token_id": 0,
    "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
NEOX = {key: value for key, value in SMALL.items() if key not in ("num_key_value_heads", "pad_token_id")}
FALCON = {
    **{key: value for key, value in SMALL.items() if key not in ("num_key_value_heads", "intermediate_size")},
    "ffn_hidden_size": 96,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 500000.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24, "rope_theta": 10000.0}
LONG = {
    "rope_type": "longrope", "short_factor": [1.0 + i / 9 for i in range(8)], "rope_theta": 10000.0,
    "long_factor": [2.0 + i for i in range(8)], "original_max_position_embeddings": 48,
}  # fmt: skip
CASES = [
    ("Llama", {**SMALL, "tie_word_embeddings": True}),
    ("Llama", {**SMALL, "tie_word_embeddings": False, "attention_bias": True, "head_dim": 32}),
    ("Llama", {**SMALL, "rope_parameters": LLAMA3}),
    ("Llama", {**SMALL, "rope_parameters": YARN}),
    ("Llama", {**SMALL, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
    ("Mistral", {**SMALL, "sliding_window": None}),
    ("Qwen2", {**SMALL, "tie_word_embeddings": True}),
    ("Qwen3", {**SMALL, "head_dim": 32}),
    ("SmolLM3", {**SMALL, "no_rope_layers": [1, 1]}),
    ("Gemma", {**SMALL, "head_dim": 32}),
    ("Phi3", {**SMALL, "num_key_value_heads": 4, "original_max_position_embeddings": 48, "rope_parameters": LONG}),
    ("GPTNeoX", {**NEOX, "rotary_pct": 0.25}),
    ("Gemma2", {**SMALL, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8}),
    (
        "Gemma3Text",
        {**SMALL, "num_hidden_layers": 7, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8,
         "rope_parameters": {
             "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
             "sliding_attention": {"rope_type": "default", "rope_theta": 2000.0},
         }},
    ),
    ("Olmo2", SMALL),
    (
        "Granite",
        {**SMALL, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2,
         "logits_scaling": 4.0},
    ),
    ("Phi", {**SMALL, "num_key_value_heads": 4}),
    ("StableLm", {**SMALL, "use_qkv_bias": True, "use_parallel_residual": True}),
    ("Cohere", {**SMALL, "use_qk_norm": True}),
    ("Cohere2", {**SMALL, "num_hidden_layers": 5, "sliding_window": 8}),
    ("Falcon", FALCON),
    ("Falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    ("Falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    (
        "Qwen3Moe",
        {**SMALL, "head_dim": 32, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
         "norm_topk_prob": True},
    ),
    ("Olmoe", {**SMALL, "num_experts": 4, "num_experts_per_tok": 2}),
    ("Bloom", {"vocab_size": 257, "hidden_size": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    ("GPT2", {"vocab_size": 257, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}),
]  # fmt: skip


def made(tmp_path, first, fields):
    torch.manual_seed(0)
    config = getattr(transformers, f"{first}Config")(**fields)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, p in model.named_parameters():
        if "norm" in name or "ln_" in name or name.endswith("bias"):
            torch.nn.init.normal_(p, 1.0 if name.endswith("weight") else 0.0, 0.2)
    return tiny.save(tmp_path / "model", model, tiny.byte_level())


@pytest.mark.parametrize(("first", "fields"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_written_is_read_as_the_same_model(tmp_path, first, fields):
    folder = made(tmp_path, first, fields)
    ours = AutoModelForCausalLM.from_pretrained(folder)
    path = to_gguf(folder, tmp_path / "model.gguf", "f32")
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype="float32")
    ids = torch.randint(1, 257, (2, 40))
    torch.testing.assert_close(again(input_ids=ids).logits, ours(input_ids=ids).logits, rtol=1e-5, atol=1e-5)
    tokenizer, read = (
        AutoTokenizer.from_pretrained(folder),
        AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name),
    )
    assert read("A text: 12 films.\n").input_ids == tokenizer("A text: 12 films.\n").input_ids


def test_every_dialect_is_tried():
    tried = {getattr(transformers, f"{first}Config")(**fields).model_type for first, fields in CASES}
    assert {dialect.model_type for dialect in DIALECTS.values()} <= tried


def test_transformers_reads_the_file_too(tmp_path):
    folder = made(tmp_path, "Llama", SMALL)
    to_gguf(folder, tmp_path / "model.gguf", "f32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf")
    ours = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.randint(1, 257, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_writes_the_types_that_it_names(tmp_path, form):
    fields = {
        **SMALL,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 1,
        "tie_word_embeddings": False,
    }
    folder = made(tmp_path, "Llama", {**fields, "initializer_range": 0.02})
    path = to_gguf(folder, tmp_path / "model.gguf", form)
    kinds = {name: gguf.GGMLQuantizationType(stored.kind).name for name, stored in read_header(path).tensors.items()}
    assert {kind for name, kind in kinds.items() if "norm" in name} == {"F32"}
    first = form.upper().removesuffix("_M").removesuffix("_S")
    assert kinds["blk.0.attn_q.weight"] == kinds["blk.0.ffn_up.weight"] == first
    assert kinds["output.weight"] == ("Q6_K" if first.startswith(("Q4_", "Q5_")) else first)
    assert kinds["blk.0.ffn_down.weight"] == ("Q6_K" if form.endswith("_m") else first)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype="float32")
    plain = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.randint(1, 257, (1, 24))
    a, b = model(input_ids=ids).logits, plain(input_ids=ids).logits
    # each group of 2 ** bits steps adds its share of the spread of the logits
    bits = {"f32": 20, "f16": 10, "bf16": 7}.get(form) or int(form[1])
    assert (a - b).std() < b.std() * 2.0 ** (2 - bits)


def test_the_recipe_with_m_is_careful_with_an_eighth_at_each_end_and_every_third():
    types = [tensor_type("q4_k_m", "attn_v", i, 32, 256) for i in range(32)]
    careful = [i for i, kind in enumerate(types) if kind == "Q6_K"]
    assert careful == [0, 1, 2, 3, *range(6, 28, 3), 28, 29, 30, 31]
    assert {tensor_type("q4_k_m", "attn_q", i, 32, 256) for i in range(32)} == {"Q4_K"}
    assert tensor_type("q4_k_s", "ffn_down", 0, 32, 256) == "Q4_K"
    assert tensor_type("q4_k_m", "attn_q", 5, 32, 96) == "Q5_0"
    assert tensor_type("q8_0", "attn_q", 0, 2, 40) == "F16"


def test_the_factor_of_longrope_is_written_though_the_config_leaves_it_to_be_computed(tmp_path):
    """llama.cpp takes a file's factor, and 1 where it has none."""
    folder = made(tmp_path, "Phi3", next(fields for first, fields in CASES if first == "Phi3"))
    metadata = read_header(to_gguf(folder, tmp_path / "model.gguf", "f32")).metadata
    wanted = math.sqrt(1 + math.log(96 / 48) / math.log(48))  # Phi-3's long texts over its original ones
    assert metadata["phi3.rope.scaling.attn_factor"] == pytest.approx(wanted, rel=1e-6)


def test_a_model_in_memory_is_written_as_it_is_now(tmp_path):
    folder = made(tmp_path, "Llama", SMALL)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(0.5)
    path = to_gguf(model, tmp_path / "model.gguf", "f32", tokenizer=tokenizer)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype="float32")
    assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)
    with pytest.raises(InputError, match="tokenizer="):
        to_gguf(model, tmp_path / "model.gguf")


def test_gguf_to_gguf_keeps_template_tokens_and_settings(tmp_path):
    folder = made(tmp_path, "Llama", SMALL)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "chat_template": "{{ messages[0].content }}"})
    )
    first = to_gguf(folder, tmp_path / "first.gguf", "q8_0")
    second = to_gguf(first, tmp_path / "second.gguf", "q8_0")
    a, b = read_header(first), read_header(second)
    assert {k: v for k, v in a.metadata.items() if k != "general.name"} == {
        k: v for k, v in b.metadata.items() if k != "general.name"
    }
    assert {n: (t.shape, t.kind) for n, t in a.tensors.items()} == {n: (t.shape, t.kind) for n, t in b.tensors.items()}
    assert first.read_bytes()[-4096:] == second.read_bytes()[-4096:]  # blocks put back and quantized again are the same
    with pytest.raises(InputError, match="written over"):
        to_gguf(first, tmp_path / "first.gguf", "q4_0")


@pytest.mark.parametrize(
    ("first", "fields", "what"),
    [
        ("Llama", {**SMALL, "hidden_act": "gelu"}, "activation"),
        ("Mistral", {**SMALL, "sliding_window": 8}, "sliding_window is 8"),
        ("Llama", {**SMALL, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "dynamic"),
        ("Llama", {**SMALL, "rope_parameters": {**YARN, "beta_fast": 20.0}}, "beta_fast"),
    ],
)
def test_what_gguf_cannot_say_is_refused_before_anything_is_written(tmp_path, first, fields, what):
    folder = made(tmp_path, first, fields)
    with pytest.raises(ConfigError, match=what):
        to_gguf(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_a_tokenizer_without_a_form_and_an_encoder_are_refused(tmp_path):
    folder = made(tmp_path, "Llama", SMALL)
    with pytest.raises(TokenizerError, match="byte-pair"):
        to_gguf(
            folder, tmp_path / "m.gguf", tokenizer=AutoTokenizer.from_pretrained(tiny.classifier(tmp_path / "bert"))
        )
    with pytest.raises(ConfigError, match="'bert'"):
        to_gguf(tmp_path / "bert", tmp_path / "m.gguf")
    with pytest.raises(InputError, match=r"\.gguf"):
        to_gguf(folder, tmp_path / "m.bin")
    with pytest.raises(InputError, match="q4_k_m"):
        to_gguf(folder, tmp_path / "m.gguf", "q4_k")
    with pytest.raises(InputError, match="there is no folder"):
        to_gguf(folder, tmp_path / "nowhere" / "m.gguf")
