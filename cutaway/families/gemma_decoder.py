"""The decoder of Gemma 2 and 3: Gemma's with a norm on each side of each layer, bounded scores and logits, windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cutaway.config.architecture import Architecture
from cutaway.families import llama_decoder

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

DEFAULTS: dict[str, Any] = {
    **{name: value for name, value in llama_decoder.DEFAULTS.items() if name != "hidden_act"},
    "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    "tie_word_embeddings": True, "attention_bias": False, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "layer_types": None, "use_bidirectional_attention": None,
}  # fmt: skip

WEIGHTS = {
    **llama_decoder.WEIGHTS,
    "blocks.{i}.attn_result_norm": "layers.{i}.post_attention_layernorm",
    "blocks.{i}.mlp_norm": "layers.{i}.pre_feedforward_layernorm",
    "blocks.{i}.mlp_result_norm": "layers.{i}.post_feedforward_layernorm",
}


def gemma_decoder(config: PretrainedConfig, slides: Callable[[int], bool]) -> Architecture:
    """The decoder of a config with the fields of `DEFAULTS` and `final_logit_softcapping`.

    Args:
        slides: as `llama_decoder.decoder` has it.
    """
    bias = config.flag("attention_bias")
    found = llama_decoder.decoder(config, bias=bias, out_bias=bias, slides=slides, activation="hidden_activation")
    stack = found.stack
    attention = replace(
        stack.attention,
        scale=config.number("query_pre_attn_scalar", 1e-6, 1e6) ** -0.5,
    )
    stack = replace(
        stack,
        embedding=replace(stack.embedding, scale=stack.hidden_size**0.5, scales_table=True),
        attention=attention,
        norm=replace(stack.norm, offset=1.0),
        norm_place="both",
    )
    return replace(found, stack=stack, output_cap=cap(config, "final_logit_softcapping"))


def cap(config: PretrainedConfig, name: str) -> float | None:
    """The bound that a field sets, None where it sets none."""
    return None if getattr(config, name) is None else config.number(name, 1e-3, 1e6)
