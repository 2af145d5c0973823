"""Tiny random models of every family, made by transformers, for live comparison."""

from __future__ import annotations

import re
from typing import Any

import torch
import transformers

BERT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
BART = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 40,
}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "num_heads": 4, "num_layers": 3, "num_decoder_layers": 2, "d_ff": 48}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", BERT),
    "distilbert": (
        "DistilBert",
        {"vocab_size": 99, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40},
    ),
    "roberta": ("Roberta", {**BERT, "max_position_embeddings": 44}),
    "xlm-roberta": ("XLMRoberta", {**BERT, "max_position_embeddings": 44}),
    "camembert": ("Camembert", {**BERT, "max_position_embeddings": 44}),
    "electra": ("Electra", {**BERT, "embedding_size": 24}),
    "albert": ("Albert", {**BERT, "embedding_size": 24, "num_hidden_groups": 2}),
    # each of three layers runs the two blocks of its group
    "albert-inner": ("Albert", {**BERT, "embedding_size": 24, "num_hidden_groups": 2, "inner_group_num": 2}),
    "mpnet": ("MPNet", {**BERT, "max_position_embeddings": 44}),
    "modernbert": (
        "ModernBert",
        {**BERT, "local_attention": 6, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2},
    ),
    # span / 2 = 2 distances of their own, then buckets; more words than the largest of these
    "deberta-v2": (
        "DebertaV2",
        {
            **BERT,
            "relative_attention": True,
            "position_buckets": 4,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
            "layer_norm_eps": 1e-7,
            "max_position_embeddings": 12,
        },
    ),
    "deberta-v2-conv": (
        "DebertaV2",
        {
            **BERT,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "conv_kernel_size": 3,
            "conv_act": "gelu",
            "type_vocab_size": 2,
            "max_relative_positions": 5,
        },
    ),
    "xlnet": ("XLNet", {"vocab_size": 99, "d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 48, "mem_len": None}),
    "eurobert": (
        "EuroBert",
        {**BERT, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 3},
    ),
    "nomic_bert": ("NomicBert", BERT),
    "gte": ("Gte", {**BERT, "type_vocab_size": 0}),
    "jina_embeddings_v3": ("JinaEmbeddingsV3", BERT),
    "gpt2": (
        "GPT2",
        {
            "vocab_size": 99,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 40,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
    ),
    "llama": ("Llama", {**BERT, "num_key_value_heads": 2, "pad_token_id": 0}),
    "mistral": ("Mistral", {**BERT, "num_key_value_heads": 2, "pad_token_id": 0, "sliding_window": 3}),
    "smollm3": (
        "SmolLM3",
        {
            **BERT,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "no_rope_layers": [1, 0, 1],
            "use_sliding_window": True,
            "sliding_window": 4,
        },
    ),
    "qwen2": ("Qwen2", {**BERT, "num_key_value_heads": 2, "pad_token_id": 0}),
    "qwen3": ("Qwen3", {**BERT, "num_key_value_heads": 2, "pad_token_id": 0, "head_dim": 16}),
    "gemma": ("Gemma", {**BERT, "num_key_value_heads": 1, "pad_token_id": 0, "head_dim": 16}),
    "gemma2": (
        "Gemma2",
        {
            **BERT,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "head_dim": 16,
            "query_pre_attn_scalar": 12,
            "sliding_window": 4,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 5.0,
        },
    ),
    "gemma3_text": (
        "Gemma3Text",
        {
            **BERT,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "head_dim": 16,
            "query_pre_attn_scalar": 12,
            "sliding_window": 4,
            "sliding_window_pattern": 3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
    ),
    "olmo2": (
        "Olmo2",
        {**BERT, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1},
    ),
    "granite": (
        "Granite",
        {
            **BERT,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "embedding_multiplier": 3.0,
            "logits_scaling": 4.0,
            "residual_multiplier": 0.4,
            "attention_multiplier": 0.3,
        },
    ),
    "phi": (
        "Phi",
        {
            **BERT,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
        },
    ),
    "stablelm": (
        "StableLm",
        {
            **BERT,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
            "use_parallel_residual": True,
            "qk_layernorm": True,
            "use_qkv_bias": True,
        },
    ),
    "cohere": (
        "Cohere",
        {
            **BERT,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "use_qk_norm": True,
            "logit_scale": 0.4,
        },
    ),
    "cohere2": (
        "Cohere2",
        {
            **BERT,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "sliding_window": 4,
            "logit_scale": 0.4,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "gptj": (
        "GPTJ",
        {
            "vocab_size": 99,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 40,
            "rotary_dim": 4,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
    ),
    "gpt_neo": (
        "GPTNeo",
        {
            "vocab_size": 99,
            "hidden_size": 32,
            "num_layers": 3,
            "num_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 40,
            "window_size": 4,
            "attention_types": [[["global"], 1], [["local"], 2]],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
    ),
    "falcon": (
        "Falcon",
        {
            "vocab_size": 99,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_hidden_size": 48,
            # it cannot be set later, and upstream's default takes no mask where attentions are asked for
            "attn_implementation": "eager",
            "max_position_embeddings": 40,
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "bloom": (
        "Bloom",
        {
            "vocab_size": 99,
            "hidden_size": 32,
            "n_layer": 3,
            "n_head": 4,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "qwen3_moe": (
        "Qwen3Moe",
        {
            **BERT,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "head_dim": 16,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
        },
    ),
    "olmoe": (
        "Olmoe",
        {
            **BERT,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
    "phi3": (
        "Phi3",
        {
            **BERT,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
        },
    ),
    "gpt_neox": (
        "GPTNeoX",
        {**BERT, "pad_token_id": 0, "rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.5}},
    ),
    "opt": (
        "OPT",
        {
            "vocab_size": 99,
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "max_position_embeddings": 40,
            "pad_token_id": 0,
        },
    ),
    # as OPT-350m
    "opt-narrow": (
        "OPT",
        {
            "vocab_size": 99,
            "hidden_size": 32,
            "word_embed_proj_dim": 24,
            "do_layer_norm_before": False,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "max_position_embeddings": 40,
            "pad_token_id": 0,
        },
    ),
    "t5": (
        "T5",
        {
            "vocab_size": 99,
            "d_model": 32,
            "d_kv": 8,
            "num_heads": 4,
            "num_layers": 3,
            "num_decoder_layers": 2,
            "d_ff": 48,
        },
    ),
    "t5-gated": (
        "T5",
        {
            "vocab_size": 99,
            "d_model": 32,
            "d_kv": 16,
            "num_heads": 4,
            "num_layers": 2,
            "d_ff": 48,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
    ),
    "mt5": ("MT5", T5),
    "umt5": ("UMT5", {**T5, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 6}),
    "bart": (
        "Bart",
        BART,
    ),
    "mbart": ("MBart", BART),
    "marian": ("Marian", {**BART, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}),
    "marian-apart": (
        "Marian",
        {
            **BART,
            "decoder_vocab_size": 107,
            "share_encoder_decoder_embeddings": False,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 0,
        },
    ),
    "pegasus": ("Pegasus", BART),
    "m2m_100": ("M2M100", {**BART, "scale_embedding": True}),
}
# the decoders that differ from those before them in a few choices
VARIANTS = (
    "mistral",
    "smollm3",
    "qwen2",
    "qwen3",
    "gemma",
    "phi3",
    "gpt_neox",
    "opt",
    "opt-narrow",
    "gemma2",
    "gemma3_text",
    "olmo2",
    "granite",
    "phi",
    "stablelm",
    "cohere",
    "cohere2",
    "gptj",
    "gpt_neo",
    "falcon",
    "bloom",
    "qwen3_moe",
    "olmoe",
)
# a second model of a family, with other fields
SECOND = ("t5-gated", "deberta-v2-conv", "opt-narrow", "albert-inner", "marian-apart")
ENCODER_DECODERS = ("t5", "t5-gated", "mt5", "umt5", "bart", "mbart", "marian", "marian-apart", "pegasus", "m2m_100")


# classes whose names do not begin as the family's others
OTHER_NAMES = {"Gemma3TextForCausalLM": "Gemma3ForCausalLM"}


def make(family: str, ending: str = "Model", seed: int = 0, **fields: Any) -> Any:
    """A tiny random model of transformers, its weights spread out so that attention is not uniform."""
    first, config = CONFIGS[family]
    torch.manual_seed(seed)
    config_class = getattr(transformers, f"{first}Config")
    name = first + ending
    model = getattr(transformers, OTHER_NAMES.get(name, name))(config_class(**{**config, **fields}))
    # T5's scores are not scaled: spread as far as the others' they saturate, and rounding alone exceeds 1e-5
    spread = 1.5 if first.endswith("T5") else 3.0
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:  # not positions that follow from a formula
                p.mul_(spread).add_(torch.randn_like(p) * 0.05) if p.dim() > 1 else p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


# The classes with a head, by what follows the first part of the name.
LABELS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
TEXT_AND_TOKEN = LABELS[:2]
HEADS: dict[str, tuple[str, ...]] = {
    "bert": (
        *LABELS,
        "ForMultipleChoice",
        "ForMaskedLM",
        "LMHeadModel",
        "ForNextSentencePrediction",
        "ForPreTraining",
    ),
    "distilbert": (*LABELS, "ForMultipleChoice", "ForMaskedLM"),
    "roberta": (*LABELS, "ForMultipleChoice", "ForMaskedLM", "ForCausalLM"),
    # the rest of it is RoBERTa's declaration, word for word
    "xlm-roberta": ("ForSequenceClassification", "ForMaskedLM"),
    "camembert": (*TEXT_AND_TOKEN, "ForMaskedLM", "ForCausalLM"),
    "electra": (*LABELS, "ForMultipleChoice", "ForMaskedLM", "ForCausalLM", "ForPreTraining"),
    "albert": (*LABELS, "ForMultipleChoice", "ForMaskedLM", "ForPreTraining"),
    "albert-inner": ("ForSequenceClassification", "ForMaskedLM"),
    "mpnet": (*LABELS, "ForMultipleChoice", "ForMaskedLM"),
    "modernbert": (*LABELS, "ForMultipleChoice", "ForMaskedLM"),
    "deberta-v2": (*LABELS, "ForMultipleChoice", "ForMaskedLM"),
    "deberta-v2-conv": ("ForSequenceClassification",),
    "xlnet": (*TEXT_AND_TOKEN, "ForQuestionAnsweringSimple", "ForMultipleChoice", "LMHeadModel"),
    "eurobert": (*TEXT_AND_TOKEN, "ForMaskedLM"),
    "nomic_bert": (*TEXT_AND_TOKEN, "ForMaskedLM"),
    "gte": (*TEXT_AND_TOKEN, "ForMaskedLM"),
    "jina_embeddings_v3": (*LABELS, "ForMaskedLM"),
    "gpt2": (*LABELS, "LMHeadModel", "DoubleHeadsModel"),
    "llama": (*LABELS, "ForCausalLM"),
    "mistral": (*LABELS, "ForCausalLM"),
    "smollm3": (*LABELS, "ForCausalLM"),
    "qwen2": (*LABELS, "ForCausalLM"),
    "qwen3": (*LABELS, "ForCausalLM"),
    "gemma": (*TEXT_AND_TOKEN, "ForCausalLM"),
    "gemma2": (*TEXT_AND_TOKEN, "ForCausalLM"),
    "gemma3_text": ("ForSequenceClassification", "ForCausalLM"),
    "olmo2": ("ForSequenceClassification", "ForCausalLM"),
    "granite": ("ForCausalLM",),
    "phi": (*TEXT_AND_TOKEN, "ForCausalLM"),
    "stablelm": (*TEXT_AND_TOKEN, "ForCausalLM"),
    "cohere": ("ForCausalLM",),
    "cohere2": ("ForCausalLM",),
    "gptj": ("ForSequenceClassification", "ForQuestionAnswering", "ForCausalLM"),
    "gpt_neo": (*LABELS, "ForCausalLM"),
    "falcon": (*LABELS, "ForCausalLM"),
    "bloom": (*LABELS, "ForCausalLM"),
    "qwen3_moe": (*LABELS, "ForCausalLM"),
    "olmoe": ("ForCausalLM",),
    "phi3": (*TEXT_AND_TOKEN, "ForCausalLM"),
    "gpt_neox": (*LABELS, "ForCausalLM"),
    "opt": ("ForSequenceClassification", "ForQuestionAnswering", "ForCausalLM"),
    "opt-narrow": ("ForSequenceClassification", "ForQuestionAnswering", "ForCausalLM"),
    "t5": (*LABELS, "ForConditionalGeneration"),
    "t5-gated": (*LABELS, "ForConditionalGeneration"),
    "mt5": ("ForConditionalGeneration",),
    "umt5": (*LABELS, "ForConditionalGeneration"),
    "bart": ("ForSequenceClassification", "ForQuestionAnswering", "ForConditionalGeneration"),
    "mbart": ("ForSequenceClassification", "ForQuestionAnswering", "ForConditionalGeneration"),
    "marian": ("MTModel",),
    "marian-apart": ("MTModel",),
    "pegasus": ("ForConditionalGeneration",),
    "m2m_100": ("ForConditionalGeneration",),
}
CLASSIFYING = tuple(family for family in VARIANTS if "ForSequenceClassification" in HEADS[family])
EVERY_HEAD = [(family, ending) for family, endings in HEADS.items() for ending in endings]


def decoder_fields(family: str, ending: str) -> dict[str, Any]:
    """BERT's kin read the whole text unless the config says that they are decoders."""
    wanted = family in ("bert", "roberta", "xlm-roberta", "camembert", "electra") and ending in (
        "LMHeadModel",
        "ForCausalLM",
    )
    return {"is_decoder": True} if wanted else {}


# with every expert at work: where a token changes its experts, the model makes a step, which no gradient knows of
ALL_EXPERTS = {"qwen3_moe": {"num_experts_per_tok": 5}, "olmoe": {"num_experts_per_tok": 4}}
EXPERT = re.compile(r"(.*\.experts\.)(\d+)\.(gate|up|down)_proj\.weight")


def upstream_expert_name(name: str) -> str:
    """The tensor in which upstream's class, not its file, holds a matrix of one expert; other names as they are."""
    found = EXPERT.fullmatch(name)
    return name if found is None else f"{found[1]}{'down' if found[3] == 'down' else 'gate_up'}_proj"


def with_joined_experts(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors by published name, and those of experts as upstream's class holds them: [experts, out, in]."""
    each: dict[str, dict[int, dict[str, torch.Tensor]]] = {}
    for name, value in values.items():
        if (found := EXPERT.fullmatch(name)) is not None:
            each.setdefault(upstream_expert_name(name), {}).setdefault(int(found[2]), {})[found[3]] = value
    joined = {
        name: torch.stack(
            [torch.cat([of[p] for p in ("gate", "up", "down") if p in of]) for _, of in sorted(own.items())]
        )
        for name, own in each.items()
    }
    return {name: value for name, value in values.items() if EXPERT.fullmatch(name) is None} | joined
