"""Qwen3 with experts (Yang et al., 2025)."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config_fields import only
from cutaway.families.expert_decoder import DEFAULTS, REFUSED, WITHOUT_EFFECT, weights, with_experts
from cutaway.families.layer_types import OptionalWindow
from cutaway.families.llama_decoder import DERIVED, LABEL, SPAN, TOKEN, USED, decoder
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class Qwen3MoeConfig(OptionalWindow):
    """Published fields: see `defaults`."""

    model_type = "qwen3_moe"
    attribute_map = {"num_local_experts": "num_experts"}
    defaults = {
        **DEFAULTS, "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24,
        "num_key_value_heads": 4, "max_position_embeddings": 32768, "use_sliding_window": False,
        "sliding_window": 4096, "attention_bias": False, "moe_intermediate_size": 768, "num_experts": 128,
    }  # fmt: skip
    derived = DERIVED
    used = USED
    without_effect = WITHOUT_EFFECT
    refused = {**REFUSED, "mlp_only_layers": only(None, []), "decoder_sparse_step": only(None, 1)}


def to_architecture(config: Qwen3MoeConfig) -> Architecture:
    """The published config -> Architecture."""
    bias = config.flag("attention_bias")
    slide = config.flag("use_sliding_window") and config.sliding_window is not None
    found = decoder(config, bias=bias, out_bias=bias, slides=lambda i: slide)
    attention = replace(found.stack.attention, norm=found.stack.norm)
    found = replace(found, stack=replace(found.stack, attention=attention))
    return with_experts(found, config, config.integer("moe_intermediate_size", 1, 1_000_000))


FAMILY = Family(to_architecture, weights, "model")


class Qwen3MoePreTrainedModel(PreTrainedModel, config=Qwen3MoeConfig, prefix="model"):
    """Base for a user's own models around a `Qwen3MoeModel` called `model`."""


class Qwen3MoeModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=Qwen3MoeConfig, prefix="model"):
    """The base model: hidden states."""


class Qwen3MoeForCausalLM(lm_heads.CausalLM, backbone=Qwen3MoeModel, head=Output("lm_head")):
    """Which token comes next."""


class Qwen3MoeForSequenceClassification(label_heads.SequenceClassification, backbone=Qwen3MoeModel, head=LABEL):
    """A label for a text."""


class Qwen3MoeForTokenClassification(label_heads.TokenClassification, backbone=Qwen3MoeModel, head=TOKEN):
    """A label for each token."""


class Qwen3MoeForQuestionAnswering(
    label_heads.QuestionAnswering, backbone=Qwen3MoeModel, head=SPAN, prefix="transformer", published="transformer"
):
    """Where the answer stands."""
