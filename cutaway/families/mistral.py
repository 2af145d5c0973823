"""Mistral (Jiang et al., 2023): Llama's decoder in which a token sees the last `sliding_window` ones."""

from __future__ import annotations

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
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


class MistralConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "mistral"
    defaults = {
        **DEFAULTS, "vocab_size": 32000, "intermediate_size": 14336, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "bos_token_id": 1, "eos_token_id": 2, "sliding_window": 4096,
    }  # fmt: skip
    derived = DERIVED
    used = USED + WINDOWS
    without_effect = WITHOUT_EFFECT


def to_architecture(config: MistralConfig) -> Architecture:
    """The published config -> Architecture."""
    return decoder(config, slides=lambda _: config.sliding_window is not None)


FAMILY = Family(to_architecture, WEIGHTS, "model")


class MistralPreTrainedModel(PreTrainedModel, config=MistralConfig, prefix="model"):
    """Base for a user's own models around a `MistralModel` called `model`."""


class MistralModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=MistralConfig, prefix="model"):
    """The base model: hidden states."""


class MistralForCausalLM(lm_heads.CausalLM, backbone=MistralModel, head=Output("lm_head")):
    """Which token comes next."""


class MistralForSequenceClassification(label_heads.SequenceClassification, backbone=MistralModel, head=LABEL):
    """A label for a text."""


class MistralForTokenClassification(label_heads.TokenClassification, backbone=MistralModel, head=TOKEN):
    """A label for each token."""


class MistralForQuestionAnswering(label_heads.QuestionAnswering, backbone=MistralModel, head=SPAN):
    """Where the answer stands."""
