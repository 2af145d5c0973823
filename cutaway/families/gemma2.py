"""Gemma 2 (Gemma Team, 2024): bounded scores and logits, norms around each layer, windows in turn."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import only
from cutaway.families.gemma_decoder import DEFAULTS, WEIGHTS, cap, gemma_decoder
from cutaway.families.layer_types import layer_types
from cutaway.families.llama_decoder import DERIVED, LABEL, TOKEN, USED, WINDOWS, WITHOUT_EFFECT
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class Gemma2Config(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "gemma2"
    defaults = {**DEFAULTS, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0}
    derived = {**DERIVED, "layer_types": lambda config: layer_types(config, slides)}
    used = USED + WINDOWS
    without_effect = {**WITHOUT_EFFECT, "hidden_act": "hidden_activation says it"}
    refused = {"use_bidirectional_attention": only(None, False)}


def slides(i: int) -> bool:
    """Whether the i-th layer sees only a window, where `layer_types` does not say it."""
    return i % 2 == 0


def to_architecture(config: Gemma2Config) -> Architecture:
    """The published config -> Architecture: from the first layer on, every other one has the window."""
    found = gemma_decoder(config, slides)
    attention = replace(found.stack.attention, softcap=cap(config, "attn_logit_softcapping"))
    return replace(found, stack=replace(found.stack, attention=attention))


FAMILY = Family(to_architecture, WEIGHTS, "model")


class Gemma2PreTrainedModel(PreTrainedModel, config=Gemma2Config, prefix="model"):
    """Base for a user's own models around a `Gemma2Model` called `model`."""


class Gemma2Model(Backbone[BaseModelOutputWithPast], family=FAMILY, config=Gemma2Config, prefix="model"):
    """The base model: hidden states."""


class Gemma2ForCausalLM(lm_heads.CausalLM, backbone=Gemma2Model, head=Output("lm_head")):
    """Which token comes next."""


class Gemma2ForSequenceClassification(label_heads.SequenceClassification, backbone=Gemma2Model, head=LABEL):
    """A label for a text."""


class Gemma2ForTokenClassification(label_heads.TokenClassification, backbone=Gemma2Model, head=TOKEN):
    """A label for each token."""
