"""SmolLM3 (Bakouch et al., 2025): Llama's decoder in which every fourth layer knows no positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cutaway.checkpoint.field_checks import shown_value
from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.errors import ConfigError
from cutaway.families.layer_types import layer_types
from cutaway.families.llama_decoder import (
    DEFAULTS,
    DERIVED,
    LABEL,
    SPAN,
    TOKEN,
    USED,
    WEIGHTS,
    WINDOWS,
    WITHOUT_EFFECT,
    decoder,
)
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class SmolLM3Config(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "smollm3"
    defaults = {
        **DEFAULTS, "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32768,
        "rope_theta": 2000000.0, "pad_token_id": 128004, "bos_token_id": 128000, "eos_token_id": 128001,
        "use_sliding_window": False, "sliding_window": None, "no_rope_layers": None, "no_rope_layer_interval": 4,
        "layer_types": None, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
    }  # fmt: skip
    derived = {
        **DERIVED, "no_rope_layers": lambda config: _turned(config),
        "layer_types": lambda config: layer_types(config, _slides(config)),
    }  # fmt: skip
    used = USED + WINDOWS
    without_effect = WITHOUT_EFFECT


def _turned(config: PretrainedConfig) -> list[int]:
    """1 for each layer with rotary positions, 0 for one without."""
    n, turns = config.integer("num_hidden_layers", 1, 1000), config.stated("no_rope_layers")
    if turns is None:
        interval = config.integer("no_rope_layer_interval", 1, 1_000_000)
        turns = [int((i + 1) % interval != 0) for i in range(n)]
    if not isinstance(turns, list) or len(turns) < n or not all(turn in (0, 1) for turn in turns):
        raise ConfigError(f"no_rope_layers is {shown_value(turns)}; it must hold 0 or 1 for each of {n} layers.")
    return turns


def _slides(config: PretrainedConfig) -> Callable[[int], bool]:
    """Which layers see only a window, where `layer_types` does not say it."""
    turns, slide = _turned(config), config.flag("use_sliding_window") and config.sliding_window is not None
    return lambda i: slide and not turns[i]


def to_architecture(config: SmolLM3Config) -> Architecture:
    """The published config -> Architecture. In `no_rope_layers`, 0 is a layer without rotary positions."""
    n, bias = config.integer("num_hidden_layers", 1, 1000), config.flag("attention_bias")
    turns = _turned(config)
    mlp_bias = config.flag("mlp_bias")
    found = decoder(config, bias=bias, out_bias=bias, mlp_bias=mlp_bias, slides=_slides(config))
    rotary = found.stack.rotary[0]
    return replace(
        found, stack=replace(found.stack, layer_positions=tuple(rotary if turn else None for turn in turns[:n]))
    )


FAMILY = Family(to_architecture, WEIGHTS, "model")


class SmolLM3PreTrainedModel(PreTrainedModel, config=SmolLM3Config, prefix="model"):
    """Base for a user's own models around a `SmolLM3Model` called `model`."""


class SmolLM3Model(Backbone[BaseModelOutputWithPast], family=FAMILY, config=SmolLM3Config, prefix="model"):
    """The base model: hidden states."""


class SmolLM3ForCausalLM(lm_heads.CausalLM, backbone=SmolLM3Model, head=Output("lm_head")):
    """Which token comes next."""


class SmolLM3ForSequenceClassification(label_heads.SequenceClassification, backbone=SmolLM3Model, head=LABEL):
    """A label for a text."""


class SmolLM3ForTokenClassification(label_heads.TokenClassification, backbone=SmolLM3Model, head=TOKEN):
    """A label for each token."""


class SmolLM3ForQuestionAnswering(
    label_heads.QuestionAnswering, backbone=SmolLM3Model, head=SPAN, prefix="transformer", published="transformer"
):
    """Where the answer stands."""
