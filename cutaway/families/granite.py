"""Granite (IBM, 2024): Llama's decoder with factors on embeddings, scores, what each layer makes, and logits."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.llama_decoder import DEFAULTS, DERIVED, USED, WEIGHTS, WITHOUT_EFFECT, decoder
from cutaway.models import lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class GraniteConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "granite"
    defaults = {
        **DEFAULTS, "vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048,
        "bos_token_id": 1, "eos_token_id": 2, "attention_bias": False, "mlp_bias": False, "embedding_multiplier": 1.0,
        "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1.0,
    }  # fmt: skip
    derived = DERIVED
    used = tuple(name for name in USED if name not in ("classifier_dropout", "hidden_dropout"))
    without_effect = WITHOUT_EFFECT


def to_architecture(config: GraniteConfig) -> Architecture:
    """The published config -> Architecture."""
    bias = config.flag("attention_bias")
    found = decoder(config, bias=bias, out_bias=bias, mlp_bias=config.flag("mlp_bias"))
    stack = found.stack
    scale = config.number("embedding_multiplier", 1e-6, 1e6)
    return replace(
        found,
        stack=replace(
            stack,
            embedding=replace(stack.embedding, scale=scale, scales_inputs=True),
            attention=replace(stack.attention, scale=config.number("attention_multiplier", 1e-6, 1e6)),
            residual_scale=config.number("residual_multiplier", 1e-6, 1e6),
        ),
        output_scale=1.0 / config.number("logits_scaling", 1e-6, 1e6),
    )


FAMILY = Family(to_architecture, WEIGHTS, "model")


class GranitePreTrainedModel(PreTrainedModel, config=GraniteConfig, prefix="model"):
    """Base for a user's own models around a `GraniteModel` called `model`."""


class GraniteModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=GraniteConfig, prefix="model"):
    """The base model: hidden states."""


class GraniteForCausalLM(lm_heads.CausalLM, backbone=GraniteModel, head=Output("lm_head")):
    """Which token comes next."""
