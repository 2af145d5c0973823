"""The decoder of Command R: one norm without bias before parallel layers, neighbours turned together, scaled logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cutaway.config.architecture import Architecture, Norm, Rotary
from cutaway.families import llama_decoder

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

DEFAULTS: dict[str, Any] = {
    **{name: value for name, value in llama_decoder.DEFAULTS.items() if name != "rms_norm_eps"},
    "vocab_size": 256000, "hidden_size": 8192, "intermediate_size": 22528, "logit_scale": 0.0625,
    "num_hidden_layers": 40, "num_attention_heads": 64, "max_position_embeddings": 8192, "layer_norm_eps": 1e-5,
    "pad_token_id": 0, "bos_token_id": 5, "eos_token_id": 255001, "tie_word_embeddings": True, "attention_bias": False,
}  # fmt: skip
WEIGHTS = {name: theirs for name, theirs in llama_decoder.WEIGHTS.items() if not name.endswith(".mlp_norm")}


def cohere_decoder(
    config: PretrainedConfig, theta: float, slides: Callable[[int], bool] = lambda i: False
) -> Architecture:
    """The decoder of a config with the fields of `DEFAULTS`; the arguments are those of `llama_decoder.decoder`."""
    bias = config.flag("attention_bias")
    norm = Norm("layer", config.number("layer_norm_eps", 0.0, 1.0), bias=False)
    found = llama_decoder.decoder(config, bias=bias, out_bias=bias, norm=norm, slides=slides, theta=theta)
    turns = found.stack.positions
    assert isinstance(turns, Rotary)
    stack = replace(found.stack, norm_place="shared", positions=replace(turns, interleaved=True))
    return replace(found, stack=stack, output_scale=config.number("logit_scale", 1e-6, 1e6))
