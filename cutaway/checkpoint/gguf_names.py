"""How each family is written in GGUF: the names of its tensors and fields, and what the converters changed.

Names are those of gguf-py/gguf/constants.py; the changes are those of llama.cpp's convert_hf_to_gguf.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_LLAMA_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LLAMA_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_FIELDS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "num_attention_heads": "attention.head_count",
    "num_hidden_layers": "block_count",
}
_RMS = {**_FIELDS, "rms_norm_eps": "attention.layer_norm_rms_epsilon"}
_BIASES = {"attention_bias": "self_attn.q_proj", "mlp_bias": "mlp.up_proj"}


@dataclass(frozen=True)
class Dialect:
    """One value of `general.architecture`.

    Attributes:
        model_type, model: the published family, and the class of its language model.
        top, block: layers by their GGUF names -> published names, outside and inside of a block.
        blocks: what stands before the published names in block {i}.
        fields: config field -> metadata key, without the architecture's name before it.
        optional: the same of fields that a file may lack.
        fixed: config fields that every such file has.
        derived: config fields that follow from those that were read.
        biases: config field -> the published layer of a block whose bias says that it is true.
        layers: config field -> the published layer of a block that says, by being there, that it is true.
        theta: the base of rotary frequencies where the file gives none.
        groups: whether key/value heads, head size and rotary positions are in the metadata.
        partial: whether heads may be rotary in part.
        rotated: the layers whose rows are in the order of GGUF's own rotary embedding -> the count of their heads.
        norm_offset: what was added to the weights of norms.
        turned: layers that are published transposed.
        per_head: the layer that is published head by head, and here query, key, value.
        grouped: whether it is published by the heads that share keys, all queries of a group before its key and value.
        instead: layers that have other published names in a file that has the layer named before them.
        renamed: what the family calls fields that are read for all families, "" where it has none.

    A published name with {e} is that of each expert: GGUF has those of a block in one tensor [experts, out, in].
    """

    model_type: str
    model: str
    top: Mapping[str, str] = field(default_factory=lambda: _LLAMA_TOP)
    block: Mapping[str, str] = field(default_factory=lambda: _LLAMA_BLOCK)
    blocks: str = "model.layers.{i}."
    fields: Mapping[str, str] = field(default_factory=lambda: _RMS)
    optional: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=lambda: {"hidden_act": "silu"})
    derived: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda config: {}
    biases: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)
    theta: float = 10_000.0
    groups: bool = True
    partial: bool = False
    rotated: tuple[str, ...] = ()
    norm_offset: float = 0.0
    turned: tuple[str, ...] = ()
    per_head: str = ""
    grouped: bool = False
    instead: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def names_in(self, layers: Iterable[str]) -> Mapping[str, str]:
        """`block`, as it is where a file has these layers, by their GGUF names."""
        there = set(layers)
        more = [names for layer, names in self.instead.items() if layer in there]
        return {**self.block, **{name: theirs for names in more for name, theirs in names.items()}}

    @property
    def tokens(self) -> str:
        """The published table of tokens."""
        return f"{self.top['token_embd']}.weight"

    @property
    def output(self) -> str:
        """The published output matrix."""
        return f"{self.top['output']}.weight"


_LAYER = {**_FIELDS, "layer_norm_eps": "attention.layer_norm_epsilon"}
_HEADS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_RESULTS = {"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
_CAPS = {name: name for name in ("attn_logit_softcapping", "final_logit_softcapping")}


def _gemma_scale(largest: int) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """How scores are scaled, which files do not say: by the size of a head, in the largest model the width's."""

    def derived(config: Mapping[str, Any]) -> dict[str, Any]:
        width, heads, size = (config[name] for name in ("hidden_size", "num_attention_heads", "head_dim"))
        by_width = config["num_hidden_layers"] == largest and isinstance(width, int) and isinstance(heads, int)
        return {"query_pre_attn_scalar": width // heads if by_width else size}

    return derived


_EXPERTS = {
    **{name: layer for name, layer in _LLAMA_BLOCK.items() if name not in ("ffn_gate", "ffn_up", "ffn_down")},
    **_HEADS,
    "ffn_gate_inp": "mlp.gate",
    **{f"ffn_{part}_exps": f"mlp.experts.{{e}}.{part}_proj" for part in ("gate", "up", "down")},
}
_COUNTS = {"num_experts": "expert_count", "num_experts_per_tok": "expert_used_count"}


def _falcon(config: Mapping[str, Any]) -> dict[str, Any]:
    """Which of Falcon's decoders it is, which files do not say: by its norms and by how many heads share keys."""
    heads, shared, two = (config[name] for name in ("num_attention_heads", "num_key_value_heads", "two_norms"))
    new = two or shared not in (1, heads)
    return {
        "new_decoder_architecture": new,
        "num_ln_in_parallel_attn": 2 if two else 1,
        "multi_query": shared == 1 and not new,
    }


DIALECTS = {
    "llama": Dialect("llama", "LlamaForCausalLM", biases=_BIASES, rotated=("attn_q", "attn_k")),
    "smollm3": Dialect("smollm3", "SmolLM3ForCausalLM", biases=_BIASES, rotated=("attn_q", "attn_k")),
    "qwen2": Dialect("qwen2", "Qwen2ForCausalLM"),
    "qwen3": Dialect(
        "qwen3",
        "Qwen3ForCausalLM",
        block={**_LLAMA_BLOCK, **_HEADS},
        biases={"attention_bias": "self_attn.q_proj"},
    ),
    "gemma": Dialect(
        "gemma",
        "GemmaForCausalLM",
        fixed={"hidden_act": "gelu_pytorch_tanh"},
        biases={"attention_bias": "self_attn.q_proj"},
        norm_offset=1.0,
    ),
    "gemma2": Dialect(
        "gemma2",
        "Gemma2ForCausalLM",
        block={**_LLAMA_BLOCK, **_RESULTS, "ffn_norm": "pre_feedforward_layernorm"},
        optional=_CAPS,
        fixed={"hidden_activation": "gelu_pytorch_tanh", **dict.fromkeys(_CAPS)},
        derived=_gemma_scale(46),
        norm_offset=1.0,
    ),
    "gemma3": Dialect(
        "gemma3_text",
        "Gemma3ForCausalLM",
        block={**_LLAMA_BLOCK, **_RESULTS, **_HEADS, "ffn_norm": "pre_feedforward_layernorm"},
        optional={"final_logit_softcapping": "final_logit_softcapping", "rope_local_base_freq": "rope.freq_base_swa"},
        fixed={"hidden_activation": "gelu_pytorch_tanh", "sliding_window_pattern": 6},
        derived=_gemma_scale(62),
        norm_offset=1.0,
        theta=1_000_000.0,
    ),
    "olmo2": Dialect(
        "olmo2",
        "Olmo2ForCausalLM",
        block={
            **{name: layer for name, layer in _LLAMA_BLOCK.items() if name not in ("attn_norm", "ffn_norm")},
            **_RESULTS,
            **_HEADS,
        },
        biases={"attention_bias": "self_attn.q_proj"},
    ),
    "granite": Dialect(
        "granite",
        "GraniteForCausalLM",
        optional={
            "attention_multiplier": "attention.scale",
            "embedding_multiplier": "embedding_scale",
            "residual_multiplier": "residual_scale",
            "logits_scaling": "logit_scale",
        },
        biases=_BIASES,
        rotated=("attn_q", "attn_k"),
    ),
    "phi2": Dialect(
        "phi",
        "PhiForCausalLM",
        top={"token_embd": "model.embed_tokens", "output_norm": "model.final_layernorm", "output": "lm_head"},
        block={
            "attn_norm": "input_layernorm",
            **{f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"},
            "attn_output": "self_attn.dense",
            "ffn_up": "mlp.fc1",
            "ffn_down": "mlp.fc2",
        },
        fields=_LAYER,
        fixed={"hidden_act": "gelu_new"},
        partial=True,
    ),
    "stablelm": Dialect(
        "stablelm",
        "StableLmForCausalLM",
        fields={**_LAYER, "use_parallel_residual": "use_parallel_residual"},
        biases={"use_qkv_bias": "self_attn.q_proj"},
        partial=True,
    ),
    "command-r": Dialect(
        "cohere",
        "CohereForCausalLM",
        block={**_LLAMA_BLOCK, **_HEADS},
        fields={**_LAYER, "logit_scale": "logit_scale"},
        biases={"attention_bias": "self_attn.q_proj"},
        layers={"use_qk_norm": "self_attn.q_norm"},
    ),
    "cohere2": Dialect(
        "cohere2",
        "Cohere2ForCausalLM",
        fields={**_LAYER, "logit_scale": "logit_scale"},
        biases={"attention_bias": "self_attn.q_proj"},
    ),
    "phi3": Dialect(
        "phi3",
        "Phi3ForCausalLM",
        block={
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        partial=True,
    ),
    "gptneox": Dialect(
        "gpt_neox",
        "GPTNeoXForCausalLM",
        top={"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "embed_out"},
        block={
            "attn_norm": "input_layernorm",
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        blocks="gpt_neox.layers.{i}.",
        fields={
            **_FIELDS,
            "layer_norm_eps": "attention.layer_norm_epsilon",
            "use_parallel_residual": "use_parallel_residual",
        },
        fixed={"hidden_act": "gelu"},
        biases={"attention_bias": "attention.query_key_value"},
        partial=True,
        per_head="attn_qkv",
    ),
    "bloom": Dialect(
        "bloom",
        "BloomForCausalLM",
        top={
            "token_embd": "transformer.word_embeddings",
            "token_embd_norm": "transformer.word_embeddings_layernorm",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        block={
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        blocks="transformer.h.{i}.",
        fields={
            "hidden_size": "embedding_length",
            "n_head": "attention.head_count",
            "n_layer": "block_count",
            "layer_norm_epsilon": "attention.layer_norm_epsilon",
        },
        fixed={},
        groups=False,
        per_head="attn_qkv",
    ),
    "falcon": Dialect(
        "falcon",
        "FalconForCausalLM",
        top={
            "token_embd": "transformer.word_embeddings",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        block={
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
        blocks="transformer.h.{i}.",
        fields={
            "hidden_size": "embedding_length",
            "ffn_hidden_size": "feed_forward_length",
            "max_position_embeddings": "context_length",
            "num_attention_heads": "attention.head_count",
            "num_hidden_layers": "block_count",
            "layer_norm_epsilon": "attention.layer_norm_epsilon",
        },
        fixed={"activation": "gelu", "alibi": False, "bias": False, "parallel_attn": True},
        derived=_falcon,
        layers={"two_norms": "ln_attn"},
        per_head="attn_qkv",
        grouped=True,
        instead={"attn_norm_2": {"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"}},
        renamed={"num_key_value_heads": "num_kv_heads", "head_dim": "", "two_norms": ""},
    ),
    "qwen3moe": Dialect(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        block=_EXPERTS,
        fields={**_RMS, **_COUNTS, "moe_intermediate_size": "expert_feed_forward_length"},
        fixed={"hidden_act": "silu", "norm_topk_prob": True},
        biases={"attention_bias": "self_attn.q_proj"},
    ),
    "olmoe": Dialect(
        "olmoe",
        "OlmoeForCausalLM",
        block=_EXPERTS,
        fields={**_RMS, **_COUNTS},
        fixed={"hidden_act": "silu", "norm_topk_prob": False},
        biases={"attention_bias": "self_attn.q_proj"},
        renamed={"head_dim": ""},
    ),
    "gpt2": Dialect(
        "gpt2",
        "GPT2LMHeadModel",
        top={
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        block={
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        blocks="transformer.h.{i}.",
        fields={
            "n_embd": "embedding_length",
            "n_inner": "feed_forward_length",
            "n_positions": "context_length",
            "n_head": "attention.head_count",
            "n_layer": "block_count",
            "layer_norm_epsilon": "attention.layer_norm_epsilon",
        },
        fixed={},
        groups=False,
        turned=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
    ),
}


def layer_of(stored: str) -> str:
    """The layer that a GGUF name stands for, without block and leaf: "blk.3.attn_q.weight" -> "attn_q"."""
    return stored.rpartition(".")[0].rpartition(".")[2]
