"""Gemma 3's text model (Gemma Team, 2025): queries and keys are normed, windows have positions of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cutaway.config.architecture import Architecture, Rotary
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import only
from cutaway.families.gemma_decoder import DEFAULTS, WEIGHTS, gemma_decoder
from cutaway.families.layer_types import layer_types
from cutaway.families.llama_decoder import DERIVED, LABEL, USED, WINDOWS, WITHOUT_EFFECT
from cutaway.families.rope import rotary
from cutaway.families.rope_table import derived_ropes
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class Gemma3TextConfig(PretrainedConfig):
    """Published fields: see `defaults`; also `rope_theta`, `rope_local_base_freq` and `sliding_window_pattern`."""

    model_type = "gemma3_text"
    defaults = {
        **DEFAULTS, "vocab_size": 262208, "max_position_embeddings": 131072, "final_logit_softcapping": None,
        "use_bidirectional_attention": False,
    }  # fmt: skip
    derived = {
        **DERIVED, "layer_types": lambda config: layer_types(config, _slides(config)),
        **derived_ropes(
            {"sliding_attention": ("rope_local_base_freq", 10_000.0), "full_attention": ("rope_theta", 1_000_000.0)},
            unscaled=("sliding_attention",),
        ),
    }  # fmt: skip
    used = (
        *(name for name in USED if name not in ("classifier_dropout", "hidden_dropout")),
        *WINDOWS,
        "rope_local_base_freq",
        "sliding_window_pattern",
    )
    without_effect = {
        **WITHOUT_EFFECT,
        "hidden_act": "hidden_activation says it",
        "attn_logit_softcapping": "the published model does not read it",
        "_sliding_window_pattern": "layer_types, which stands beside it, says it",
    }
    refused = {"use_bidirectional_attention": only(None, False)}


def _slides(config: PretrainedConfig) -> Callable[[int], bool]:
    """Which layers see only a window, where `layer_types` does not say it."""
    given = config.stated("sliding_window_pattern") is not None
    every = config.integer("sliding_window_pattern", 1, 1000) if given else 6
    return lambda i: (i + 1) % every != 0


def to_architecture(config: Gemma3TextConfig) -> Architecture:
    """The published config -> Architecture: five layers with a window, one without, unless it says which."""
    slides = _slides(config)
    found = gemma_decoder(config, slides)
    stack = found.stack
    size, kinds = stack.attention.head_size, layer_types(config, slides)
    far, near = _positions(config, size)
    return replace(
        found,
        stack=replace(
            stack,
            attention=replace(stack.attention, norm=stack.norm),
            positions=far,
            layer_positions=tuple(near if kind == "sliding_attention" else far for kind in kinds),
        ),
    )


def _positions(config: Gemma3TextConfig, size: int) -> tuple[Rotary, Rotary]:
    """The positions of layers that see everything, and of layers with a window."""
    if config.stated("rope_parameters"):
        far = rotary(config, size, "full_attention", 1_000_000.0)
        return far, rotary(config, size, "sliding_attention", 10_000.0, unscaled=True)
    given = getattr(config, "rope_local_base_freq", None) is not None
    far = rotary(config, size, base=1_000_000.0)
    theta = config.number("rope_local_base_freq", 1.0, 1e12) if given else 10_000.0
    return far, Rotary(theta, size, config.integer("max_position_embeddings", 1, 100_000_000))


FAMILY = Family(to_architecture, WEIGHTS, "model")


class Gemma3PreTrainedModel(PreTrainedModel, config=Gemma3TextConfig, prefix="model"):
    """Base for a user's own models around a `Gemma3TextModel` called `model`."""


class Gemma3TextModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=Gemma3TextConfig, prefix="model"):
    """The base model: hidden states."""


class Gemma3ForCausalLM(lm_heads.CausalLM, backbone=Gemma3TextModel, head=Output("lm_head")):
    """Which token comes next."""


class Gemma3TextForSequenceClassification(label_heads.SequenceClassification, backbone=Gemma3TextModel, head=LABEL):
    """A label for a text."""


Gemma3TextForCausalLM = Gemma3ForCausalLM  # upstream's names of this family begin in two ways
