"""Every decoder family that GGUF has: a tiny model of transformers, written as the converters write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf.constants import GGMLQuantizationType as Kind

import cutaway
from cutaway.checkpoint.gguf import read_gguf
from cutaway.errors import CheckpointError

VOCAB, HIDDEN, HEADS, KV, LAYERS, INNER = 64, 64, 4, 2, 4, 96
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPS = {**SIZES, "num_key_value_heads": KV}
ROPE = {"rope_type": "default", "rope_theta": 5000.0}
HALF = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.5, 2.0, 3.0, 4.0]}
FALCON = {**{k: v for k, v in SIZES.items() if k != "intermediate_size"}, "ffn_hidden_size": INNER}
# general.architecture -> (config class, fields, whether transformers reads such files too)
FAMILIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "llama": ("LlamaConfig", {**GROUPS, "rope_parameters": ROPE, "attention_bias": True}, False),
    "smollm3": ("SmolLM3Config", {**GROUPS, "rope_parameters": ROPE}, False),
    "qwen2": ("Qwen2Config", {**GROUPS, "rope_parameters": ROPE}, True),
    "qwen3": ("Qwen3Config", {**GROUPS, "rope_parameters": ROPE, "head_dim": 128}, True),
    "gemma": ("GemmaConfig", {**GROUPS, "head_dim": 32}, False),
    "gemma2": (
        "Gemma2Config",
        {**GROUPS, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 5, "attn_logit_softcapping": 2.0},
        False,
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            **GROUPS,
            "num_hidden_layers": 7,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 5,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        False,
    ),
    "olmo2": ("Olmo2Config", {**GROUPS, "rope_parameters": ROPE}, False),
    "granite": (
        "GraniteConfig",
        {
            **GROUPS,
            "rope_parameters": ROPE,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.2,
            "logits_scaling": 4.0,
        },
        False,
    ),
    "phi2": ("PhiConfig", {**SIZES, "rope_parameters": HALF}, False),
    "stablelm": ("StableLmConfig", {**GROUPS, "rope_parameters": HALF, "use_qkv_bias": True}, False),
    "command-r": ("CohereConfig", {**GROUPS, "rope_parameters": ROPE, "use_qk_norm": True}, False),
    "cohere2": ("Cohere2Config", {**GROUPS, "rope_parameters": ROPE, "sliding_window": 5}, False),
    "phi3": ("Phi3Config", {**GROUPS, "rope_parameters": ROPE, "sliding_window": 7}, False),
    "phi3-long": (
        "Phi3Config",
        {**GROUPS, "rope_parameters": {**LONG, "partial_rotary_factor": 0.5}, "original_max_position_embeddings": 8},
        False,
    ),
    "gptneox": ("GPTNeoXConfig", {**SIZES, "rope_parameters": HALF}, False),
    "bloom": ("BloomConfig", {"vocab_size": VOCAB, "hidden_size": 64, "n_head": 4, "n_layer": 2}, False),
    "falcon": ("FalconConfig", {**FALCON}, False),
    "falcon-two": ("FalconConfig", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": KV}, False),
    "falcon-one": (
        "FalconConfig",
        {**FALCON, "new_decoder_architecture": True, "num_kv_heads": KV, "num_ln_in_parallel_attn": 1},
        False,
    ),
    "qwen3moe": (
        "Qwen3MoeConfig",
        {**GROUPS, "rope_parameters": ROPE, "head_dim": 32, "num_experts": 5, "num_experts_per_tok": 2,
         "moe_intermediate_size": 32, "norm_topk_prob": True},
        False,
    ),
    "olmoe": (
        "OlmoeConfig", {**GROUPS, "rope_parameters": ROPE, "num_experts": 4, "num_experts_per_tok": 2}, False
    ),
    "gpt2": ("GPT2Config", {"vocab_size": VOCAB, "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 64}, False),
}  # fmt: skip


def make(family: str) -> Any:
    first, fields, _ = FAMILIES[family]
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, first)(**fields))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3.0).add_(torch.randn_like(p) * 0.05) if p.dim() > 1 else p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def published_names(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    """Tensors by the names that the converter gives the name map: the experts of a block are one tensor, as here."""
    named: dict[str, np.ndarray[Any, Any]] = {}
    for name, tensor in state.items():
        if name.endswith("experts.gate_up_proj"):
            for part, half in zip(("gate", "up"), tensor.chunk(2, 1), strict=True):
                named[name.replace("gate_up_proj", f"{part}_proj.weight")] = half.numpy()
        else:
            named[f"{name}.weight" if name.endswith("experts.down_proj") else name] = tensor.numpy()
    return named


def converted(arch: str, name: str, value: np.ndarray[Any, Any], heads: int, groups: int) -> np.ndarray[Any, Any]:
    """What llama.cpp's converter makes of a published tensor."""
    if arch in ("llama", "smollm3", "granite") and (".q_proj." in name or ".k_proj." in name):
        heads = KV if ".k_proj." in name else heads
        pairs = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
        return pairs.swapaxes(1, 2).reshape(value.shape)
    if arch.startswith("gemma") and name.endswith("norm.weight"):
        return value + 1
    if arch in ("gptneox", "bloom") and "query_key_value" in name:
        each = value.reshape(heads, 3, value.shape[0] // heads // 3, *value.shape[1:])
        return np.concatenate([each[:, n].reshape(-1, *value.shape[1:]) for n in range(3)])
    if arch == "falcon" and "query_key_value" in name:
        each = value.reshape(groups, heads // groups + 2, -1, value.shape[-1])  # as FalconModel's converter
        parts = each[:, :-2], each[:, [-2]], each[:, [-1]]
        return np.concatenate([part.reshape(-1, value.shape[-1]) for part in parts])
    if arch == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        return value.T
    return value


def write(path: Path, model: Any, family: str, kind: Kind = Kind.F32, norm: bool = False) -> Path:
    arch = family.partition("-")[0] if family.startswith(("falcon", "phi3")) else family
    config, layers = model.config, model.config.num_hidden_layers
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(4 * HIDDEN if arch == "gpt2" else INNER)
    writer.add_head_count(HEADS)
    size = getattr(config, "head_dim", None) or HIDDEN // HEADS
    if arch in ("gptneox", "gpt2", "bloom", "phi2", "stablelm", "command-r", "cohere2"):
        writer.add_layer_norm_eps(1e-5)
    if arch == "falcon":
        writer.add_layer_norm_eps(1e-5)
        writer.add_head_count_kv(config.num_kv_heads if config.new_decoder_architecture else 1)
        writer.add_tensor_data_layout("jploski")
    if arch in ("qwen3moe", "olmoe"):
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if norm:
        writer.add_expert_weights_norm(True)
    if arch == "qwen3moe":
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        writer.add_expert_weights_norm(True)
    if arch in ("stablelm", "command-r", "cohere2"):
        writer.add_head_count_kv(KV)
    if arch in ("command-r", "cohere2"):
        writer.add_logit_scale(config.logit_scale)
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    if arch not in ("gptneox", "gpt2", "bloom", "phi2", "stablelm", "command-r", "cohere2", "falcon"):
        writer.add_head_count_kv(KV)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if arch in ("qwen3", "qwen3moe", "gemma", "gemma2", "gemma3"):
        writer.add_key_length(size)
        writer.add_value_length(size)
    if arch in ("gptneox", "stablelm"):
        writer.add_parallel_residual(config.use_parallel_residual)
    elif (
        arch
        in (
            "llama",
            "smollm3",
            "qwen2",
            "qwen3",
            "gemma3",
            "olmo2",
            "granite",
            "command-r",
            "cohere2",
            "qwen3moe",
            "olmoe",
        )
        or family == "phi3"
    ):
        writer.add_rope_freq_base(5000.0)
    if arch in ("gptneox", "phi3", "llama", "phi2", "stablelm", "cohere2"):
        writer.add_rope_dimension_count(int(size * config.rope_parameters.get("partial_rotary_factor", 1.0)))
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if arch == "gemma3":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(8.0)
    if arch == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if getattr(config, "sliding_window", None) and arch in ("phi3", "gemma2", "gemma3", "cohere2"):
        writer.add_sliding_window(config.sliding_window)
    if family == "phi3-long":
        writer.add_rope_scaling_orig_ctx_len(8)
        for name in ("long", "short"):
            writer.add_tensor(f"rope_factors_{name}.weight", np.asarray(LONG[f"{name}_factor"], np.float32))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if arch.startswith("qwen") else "default")
    writer.add_token_list([f"t{i}" for i in range(VOCAB)])
    writer.add_token_types([1] * VOCAB)
    writer.add_token_merges([])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0].content }}")
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper().replace("-", "_")), layers)
    done = set()
    groups = getattr(config, "num_kv_heads", KV) if getattr(config, "new_decoder_architecture", False) else 1
    for name, value in published_names(model.state_dict()).items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        published = name.replace("lm_head", "embed_out") if arch == "gptneox" else name
        published = published.removeprefix("transformer.") if arch == "bloom" else published
        stored = names.get_name(published, try_suffixes=(".weight", ".bias"))
        assert stored is not None and stored not in done, name
        done.add(stored)
        data = converted(arch, name, value, HEADS, groups)
        if kind == Kind.F32 or data.ndim < 2 or "position" in stored:
            writer.add_tensor(stored, np.ascontiguousarray(data))
        else:
            writer.add_tensor(stored, gguf.quants.quantize(np.ascontiguousarray(data), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_the_original(family: str, tmp_path: Path) -> None:
    theirs = make(family)
    path = write(tmp_path / "tiny.gguf", theirs, family)
    ours, report = cutaway.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, output_loading_info=True)
    assert not report.missing and not report.unexpected
    assert type(ours).__name__ == type(theirs).__name__
    theirs.save_pretrained(tmp_path / "published")
    published = type(ours).from_pretrained(tmp_path / "published")
    state = published.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=1e-6)  # gemma's norms: (w + 1) - 1
    ids = torch.randint(3, VOCAB, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mine, yours = ours(ids).logits, theirs(ids).logits
    assert float((mine - yours).abs().max() / yours.abs().max()) < 1e-5


@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize("family", [name for name, (_, _, reads) in FAMILIES.items() if reads])
def test_transformers_reads_the_same(family: str, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", make(family), family, Kind.Q8_0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name).eval()
    ours = cutaway.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype="float32")
    ids = torch.randint(3, VOCAB, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mine, yours = ours(ids).logits, theirs(ids).logits
    assert float((mine - yours).abs().max() / yours.abs().max()) < 1e-5


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.F16, Kind.BF16], ids=str)
def test_quantizations(kind: Kind, tmp_path: Path) -> None:
    theirs = make("qwen2")
    path = write(tmp_path / "tiny.gguf", theirs, "qwen2", kind)
    found = read_gguf(path).tensors
    for name, value in theirs.state_dict().items():
        wanted = value.numpy()
        if wanted.ndim > 1:
            wanted = gguf.quants.dequantize(gguf.quants.quantize(wanted, kind), kind)
        np.testing.assert_array_equal(found.read(name).numpy(), wanted)
        np.testing.assert_allclose(wanted, value.numpy(), atol=0.2 * float(value.abs().max()))


@pytest.mark.parametrize("family", ["falcon", "falcon-two", "qwen3moe", "olmoe"])
def test_what_lies_in_the_file_is_what_gguf_reads(family: str, tmp_path: Path) -> None:
    """Also where a part of a tensor is one of our matrices, and where it stays in the file's blocks."""
    path = write(tmp_path / "tiny.gguf", make(family), family, Kind.Q8_0)
    found, reader = read_gguf(path).tensors, gguf.GGUFReader(path)
    stored = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    if family.startswith("falcon"):
        whole = found.read("transformer.h.1.self_attention.query_key_value.weight").numpy()
        groups, size = (KV if family == "falcon-two" else 1), HIDDEN // HEADS
        each = whole.reshape(groups, HEADS // groups + 2, size, HIDDEN)
        parts = each[:, :-2].reshape(-1, HIDDEN), each[:, -2].reshape(-1, HIDDEN), each[:, -1].reshape(-1, HIDDEN)
        np.testing.assert_array_equal(np.concatenate(parts), stored["blk.1.attn_qkv.weight"])
    else:
        for part in ("gate", "up", "down"):
            for e in range(len(stored[f"blk.1.ffn_{part}_exps.weight"])):
                one = found.read(f"model.layers.1.mlp.experts.{e}.{part}_proj.weight").numpy()
                np.testing.assert_array_equal(one, stored[f"blk.1.ffn_{part}_exps.weight"][e])
    in_place = cutaway.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    as_numbers = cutaway.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype="float32")
    ids = torch.randint(3, VOCAB, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mine, yours = in_place(ids).logits, as_numbers(ids).logits
    assert float((mine - yours).abs().max() / yours.abs().max()) < 0.02  # rows are rounded to bytes on some chips


def test_experts_that_are_weighted_otherwise_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", make("olmoe"), "olmoe", norm=True)
    with pytest.raises(CheckpointError, match="expert_weights_norm is True"):
        read_gguf(path)


@pytest.mark.parametrize("kind", [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K], ids=str)
def test_k_quantizations(kind: Kind, tmp_path: Path) -> None:
    """`gguf` cannot write these blocks, but read them: any bytes are numbers."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(1).integers(0, 60, (VOCAB, size), np.uint8)  # no scale is infinite
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "qwen2")
    for add in (
        writer.add_block_count,
        writer.add_head_count,
        writer.add_context_length,
        writer.add_feed_forward_length,
    ):
        add(1)
    writer.add_embedding_length(256)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tensor("token_embd.weight", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(tmp_path / "tiny.gguf").tensors
    assert found.shape("model.embed_tokens.weight") == (VOCAB, 256)
    wanted = gguf.quants.dequantize(raw, kind)
    np.testing.assert_array_equal(found.read("model.embed_tokens.weight").numpy(), wanted)
    assert np.isfinite(wanted).all() and np.unique(wanted).size > 10


def test_the_tokenizer_inside(tmp_path: Path) -> None:
    write(tmp_path / "tiny.gguf", make("qwen2"), "qwen2")
    tokenizer = cutaway.AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    assert len(tokenizer) == VOCAB and tokenizer.eos_token == "t2"
    chat = [{"role": "user", "content": "t7"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "t7"


def test_a_family_that_is_not_known(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "grok")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"'grok'; cutaway reads GGUF of llama, .*gpt2"):
        read_gguf(tmp_path / "x.gguf")
