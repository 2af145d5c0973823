"""OLMoE (Muennighoff et al., 2024): Llama's decoder with experts, and norms over all queries and all keys."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import only
from cutaway.families.expert_decoder import DEFAULTS, REFUSED, WITHOUT_EFFECT, weights, with_experts
from cutaway.families.llama_decoder import DERIVED, USED, decoder
from cutaway.models import lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class OlmoeConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "olmoe"
    attribute_map = {"num_local_experts": "num_experts"}
    defaults = {
        **DEFAULTS, "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 16, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "pad_token_id": 1,
        "eos_token_id": 50279, "attention_bias": False, "num_experts": 64,
    }  # fmt: skip
    derived = DERIVED
    used = tuple(name for name in USED if name not in ("head_dim", "classifier_dropout", "hidden_dropout"))
    without_effect = WITHOUT_EFFECT
    refused = {**REFUSED, "clip_qkv": only(None)}


def to_architecture(config: OlmoeConfig) -> Architecture:
    """The published config -> Architecture."""
    bias = config.flag("attention_bias")
    found = decoder(config, bias=bias, out_bias=bias)
    attention = replace(found.stack.attention, norm=found.stack.norm, norm_over="all")
    found = replace(found, stack=replace(found.stack, attention=attention))
    return with_experts(found, config, found.stack.feed_forward.size)


FAMILY = Family(to_architecture, weights, "model")


class OlmoePreTrainedModel(PreTrainedModel, config=OlmoeConfig, prefix="model"):
    """Base for a user's own models around a `OlmoeModel` called `model`."""


class OlmoeModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=OlmoeConfig, prefix="model"):
    """The base model: hidden states."""


class OlmoeForCausalLM(lm_heads.CausalLM, backbone=OlmoeModel, head=Output("lm_head")):
    """Which token comes next."""
