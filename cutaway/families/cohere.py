"""Command R (Cohere, 2024)."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.cohere_decoder import DEFAULTS, WEIGHTS, cohere_decoder
from cutaway.families.llama_decoder import DERIVED, USED
from cutaway.families.rope_table import derived_rope
from cutaway.models import lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class CohereConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "cohere"
    defaults = {**DEFAULTS, "use_qk_norm": False}
    derived = {**DERIVED, **derived_rope(500_000.0)}
    used = tuple(name for name in USED if name not in ("classifier_dropout", "hidden_dropout"))


def to_architecture(config: CohereConfig) -> Architecture:
    """The published config -> Architecture."""
    found = cohere_decoder(config, 500_000.0)
    stack = found.stack
    norm = stack.norm if config.flag("use_qk_norm") else None
    return replace(found, stack=replace(stack, attention=replace(stack.attention, norm=norm, norm_over="own")))


FAMILY = Family(to_architecture, WEIGHTS, "model")


class CoherePreTrainedModel(PreTrainedModel, config=CohereConfig, prefix="model"):
    """Base for a user's own models around a `CohereModel` called `model`."""


class CohereModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=CohereConfig, prefix="model"):
    """The base model: hidden states."""


class CohereForCausalLM(lm_heads.CausalLM, backbone=CohereModel, head=Output("lm_head")):
    """Which token comes next."""
