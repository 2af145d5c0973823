"""Qwen2 and Qwen2.5 (Yang et al., 2024): Llama's decoder whose queries, keys and values have a bias."""

from __future__ import annotations

from collections.abc import Callable

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


class Qwen2Config(OptionalWindow):
    """Published fields: see `defaults`."""

    model_type = "qwen2"
    defaults = {
        **DEFAULTS, "vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768,
        "num_key_value_heads": 32, "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
        "layer_types": None,
    }  # fmt: skip
    derived = {**DERIVED, "layer_types": lambda config: layer_types(config, slides(config))}
    used = USED + WINDOWS


def slides(config: PretrainedConfig) -> Callable[[int], bool]:
    """Which layers see only a window, where `layer_types` does not say it."""
    first = config.max_window_layers if config.flag("use_sliding_window") else config.num_hidden_layers
    return lambda i: i >= first


def to_architecture(config: Qwen2Config) -> Architecture:
    """The published config -> Architecture."""
    return decoder(config, bias=True, slides=slides(config))


FAMILY = Family(to_architecture, WEIGHTS, "model")


class Qwen2PreTrainedModel(PreTrainedModel, config=Qwen2Config, prefix="model"):
    """Base for a user's own models around a `Qwen2Model` called `model`."""


class Qwen2Model(Backbone[BaseModelOutputWithPast], family=FAMILY, config=Qwen2Config, prefix="model"):
    """The base model: hidden states."""


class Qwen2ForCausalLM(lm_heads.CausalLM, backbone=Qwen2Model, head=Output("lm_head")):
    """Which token comes next."""


class Qwen2ForSequenceClassification(label_heads.SequenceClassification, backbone=Qwen2Model, head=LABEL):
    """A label for a text."""


class Qwen2ForTokenClassification(label_heads.TokenClassification, backbone=Qwen2Model, head=TOKEN):
    """A label for each token."""


class Qwen2ForQuestionAnswering(
    label_heads.QuestionAnswering, backbone=Qwen2Model, head=SPAN, prefix="transformer", published="transformer"
):
    """Where the answer stands."""
