"""Qwen3 (Yang et al., 2025): Llama's decoder with a norm over each query and key head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.layer_types import OptionalWindow, layer_types
from cutaway.families.llama_decoder import DEFAULTS, DERIVED, LABEL, SPAN, TOKEN, USED, WEIGHTS, WINDOWS, decoder
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class Qwen3Config(OptionalWindow):
    """Published fields: see `defaults`."""

    model_type = "qwen3"
    defaults = {
        **DEFAULTS, "vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768,
        "num_key_value_heads": 32, "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
        "layer_types": None,
        "head_dim": 128, "attention_bias": False,
    }  # fmt: skip
    derived = {**DERIVED, "layer_types": lambda config: layer_types(config, slides(config))}
    used = USED + WINDOWS


def slides(config: PretrainedConfig) -> Callable[[int], bool]:
    """Which layers see only a window, where `layer_types` does not say it."""
    first = config.max_window_layers if config.flag("use_sliding_window") else config.num_hidden_layers
    return lambda i: i >= first


def to_architecture(config: Qwen3Config) -> Architecture:
    """The published config -> Architecture."""
    bias = config.flag("attention_bias")
    found = decoder(config, bias=bias, out_bias=bias, slides=slides(config))
    attention = replace(found.stack.attention, norm=found.stack.norm)
    return replace(found, stack=replace(found.stack, attention=attention))


FAMILY = Family(to_architecture, WEIGHTS, "model")


class Qwen3PreTrainedModel(PreTrainedModel, config=Qwen3Config, prefix="model"):
    """Base for a user's own models around a `Qwen3Model` called `model`."""


class Qwen3Model(Backbone[BaseModelOutputWithPast], family=FAMILY, config=Qwen3Config, prefix="model"):
    """The base model: hidden states."""


class Qwen3ForCausalLM(lm_heads.CausalLM, backbone=Qwen3Model, head=Output("lm_head")):
    """Which token comes next."""


class Qwen3ForSequenceClassification(label_heads.SequenceClassification, backbone=Qwen3Model, head=LABEL):
    """A label for a text."""


class Qwen3ForTokenClassification(label_heads.TokenClassification, backbone=Qwen3Model, head=TOKEN):
    """A label for each token."""


class Qwen3ForQuestionAnswering(
    label_heads.QuestionAnswering, backbone=Qwen3Model, head=SPAN, prefix="transformer", published="transformer"
):
    """Where the answer stands."""
