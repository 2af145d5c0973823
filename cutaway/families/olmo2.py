"""OLMo 2 (OLMo Team, 2024): Llama's decoder with norms on what each layer makes, and over all queries and all keys."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families import llama_decoder
from cutaway.families.llama_decoder import DEFAULTS, DERIVED, LABEL, USED, WITHOUT_EFFECT, decoder
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class Olmo2Config(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "olmo2"
    defaults = {
        **DEFAULTS, "vocab_size": 50304, "intermediate_size": 11008, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "pad_token_id": 1, "eos_token_id": 50279, "attention_bias": False,
    }  # fmt: skip
    derived = DERIVED
    used = tuple(name for name in USED if name not in ("head_dim", "classifier_dropout", "hidden_dropout"))
    without_effect = WITHOUT_EFFECT


def to_architecture(config: Olmo2Config) -> Architecture:
    """The published config -> Architecture."""
    bias = config.flag("attention_bias")
    found = decoder(config, bias=bias, out_bias=bias)
    attention = replace(found.stack.attention, norm=found.stack.norm, norm_over="all")
    return replace(found, stack=replace(found.stack, attention=attention, norm_place="result"))


WEIGHTS = {
    name: theirs for name, theirs in llama_decoder.WEIGHTS.items() if name[-9:] not in ("attn_norm", ".mlp_norm")
}
WEIGHTS |= {
    "blocks.{i}.attn_result_norm": "layers.{i}.post_attention_layernorm",
    "blocks.{i}.mlp_result_norm": "layers.{i}.post_feedforward_layernorm",
}
FAMILY = Family(to_architecture, WEIGHTS, "model")


class Olmo2PreTrainedModel(PreTrainedModel, config=Olmo2Config, prefix="model"):
    """Base for a user's own models around a `Olmo2Model` called `model`."""


class Olmo2Model(Backbone[BaseModelOutputWithPast], family=FAMILY, config=Olmo2Config, prefix="model"):
    """The base model: hidden states."""


class Olmo2ForCausalLM(lm_heads.CausalLM, backbone=Olmo2Model, head=Output("lm_head")):
    """Which token comes next."""


class Olmo2ForSequenceClassification(label_heads.SequenceClassification, backbone=Olmo2Model, head=LABEL):
    """A label for a text."""
