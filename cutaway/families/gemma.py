"""Gemma (Gemma Team, 2024): Llama's decoder with scaled embeddings, wide heads and norms stored less 1."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import only
from cutaway.families.llama_decoder import DEFAULTS, DERIVED, LABEL, TOKEN, USED, WEIGHTS, WITHOUT_EFFECT, decoder
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class GemmaConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "gemma"
    defaults = {
        **DEFAULTS, "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
        "tie_word_embeddings": True, "attention_bias": False, "use_bidirectional_attention": None,
    }  # fmt: skip
    derived = DERIVED
    used = USED
    without_effect = WITHOUT_EFFECT
    refused = {
        "use_bidirectional_attention": only(None, False),
        "hidden_activation": only(None, "gelu", "gelu_pytorch_tanh"),
    }


def to_architecture(config: GemmaConfig) -> Architecture:
    """The published config -> Architecture. The published "gelu" is the tanh form."""
    bias = config.flag("attention_bias")
    found = decoder(config, bias=bias, out_bias=bias)
    stack = found.stack
    mlp = stack.feed_forward
    return replace(
        found,
        stack=replace(
            stack,
            embedding=replace(stack.embedding, scale=stack.hidden_size**0.5, scales_table=True),
            feed_forward=replace(mlp, activation="gelu_tanh" if mlp.activation == "gelu" else mlp.activation),
            norm=replace(stack.norm, offset=1.0),
        ),
    )


FAMILY = Family(to_architecture, WEIGHTS, "model")


class GemmaPreTrainedModel(PreTrainedModel, config=GemmaConfig, prefix="model"):
    """Base for a user's own models around a `GemmaModel` called `model`."""


class GemmaModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=GemmaConfig, prefix="model"):
    """The base model: hidden states."""


class GemmaForCausalLM(lm_heads.CausalLM, backbone=GemmaModel, head=Output("lm_head")):
    """Which token comes next."""


class GemmaForSequenceClassification(label_heads.SequenceClassification, backbone=GemmaModel, head=LABEL):
    """A label for a text."""


class GemmaForTokenClassification(label_heads.TokenClassification, backbone=GemmaModel, head=TOKEN):
    """A label for each token."""
