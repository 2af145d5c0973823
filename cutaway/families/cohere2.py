"""Command R7B and A (Cohere, 2025): Command R with windows, and rotary positions in the layers that have one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.cohere_decoder import DEFAULTS, WEIGHTS, cohere_decoder
from cutaway.families.layer_types import layer_types
from cutaway.families.llama_decoder import DERIVED, USED, WINDOWS
from cutaway.models import lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class Cohere2Config(PretrainedConfig):
    """Published fields: see `defaults`; also `sliding_window_pattern`."""

    model_type = "cohere2"
    defaults = {**DEFAULTS, "sliding_window": 4096, "layer_types": None}
    derived = {**DERIVED, "layer_types": lambda config: layer_types(config, _slides(config))}
    used = (
        *(name for name in USED if name not in ("classifier_dropout", "hidden_dropout")), *WINDOWS,
        "sliding_window_pattern",
    )  # fmt: skip


def _slides(config: PretrainedConfig) -> Callable[[int], bool]:
    """Which layers see only a window, where `layer_types` does not say it."""
    given = config.stated("sliding_window_pattern") is not None
    every = config.integer("sliding_window_pattern", 1, 1000) if given else 4
    return lambda i: (i + 1) % every != 0


def to_architecture(config: Cohere2Config) -> Architecture:
    """The published config -> Architecture: three layers with a window, one without, unless it says which."""
    slides = _slides(config)
    found = cohere_decoder(config, 10_000.0, slides)
    stack = found.stack
    turns = (stack.rotary[0] if kind == "sliding_attention" else None for kind in layer_types(config, slides))
    return replace(found, stack=replace(stack, layer_positions=tuple(turns)))


FAMILY = Family(to_architecture, WEIGHTS, "model")


class Cohere2PreTrainedModel(PreTrainedModel, config=Cohere2Config, prefix="model"):
    """Base for a user's own models around a `Cohere2Model` called `model`."""


class Cohere2Model(Backbone[BaseModelOutputWithPast], family=FAMILY, config=Cohere2Config, prefix="model"):
    """The base model: hidden states."""


class Cohere2ForCausalLM(lm_heads.CausalLM, backbone=Cohere2Model, head=Output("lm_head")):
    """Which token comes next."""
