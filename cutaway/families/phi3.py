"""Phi-3 (Abdin et al., 2024): Llama's decoder whose layers that read the same input are published as one."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.llama_decoder import (
    DEFAULTS,
    DERIVED,
    LABEL,
    TOKEN,
    USED,
    WEIGHTS,
    WINDOWS,
    WITHOUT_EFFECT,
    decoder,
)
from cutaway.families.rope_table import derived_rope
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.weight_map import Table, share, split
from cutaway.outputs import BaseModelOutputWithPast


class Phi3Config(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "phi3"
    defaults = {
        **DEFAULTS, "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "resid_pdrop": 0.0,
        "embd_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000, "sliding_window": None,
    }  # fmt: skip
    derived = {**DERIVED, **derived_rope(share=1.0)}
    used = USED + WINDOWS
    without_effect = {**WITHOUT_EFFECT, "embd_pdrop": "the published model does not read it"}


def to_architecture(config: Phi3Config) -> Architecture:
    """The published config -> Architecture."""
    found = decoder(config, slides=lambda _: config.sliding_window is not None)
    return replace(found, stack=replace(found.stack, dropout=config.number("resid_pdrop", 0.0, 1.0)))


def weights(architecture: Architecture) -> Table:
    """Llama's names, with one for queries, keys and values, and one for the two sides of the gate."""
    attention = architecture.stack.attention
    shares = (attention.n_heads, attention.n_kv_heads, attention.n_kv_heads)
    joined = {f"blocks.{{i}}.attn.{c}": share("layers.{i}.self_attn.qkv_proj", n, shares) for n, c in enumerate("qkv")}
    gates = {f"blocks.{{i}}.mlp.{c}": split("layers.{i}.mlp.gate_up_proj", n, 2) for n, c in enumerate(("gate", "up"))}
    own = joined | gates
    others = {ours: theirs for ours, theirs in WEIGHTS.items() if ours not in own}
    first = {ours: others[ours] for ours in ("embed.tokens", "blocks.{i}.attn.o")}
    return first | own | others  # in the published order


FAMILY = Family(to_architecture, weights, "model")


class Phi3PreTrainedModel(PreTrainedModel, config=Phi3Config, prefix="model"):
    """Base for a user's own models around a `Phi3Model` called `model`."""


class Phi3Model(Backbone[BaseModelOutputWithPast], family=FAMILY, config=Phi3Config, prefix="model"):
    """The base model: hidden states."""


class Phi3ForCausalLM(lm_heads.CausalLM, backbone=Phi3Model, head=Output("lm_head")):
    """Which token comes next."""


class Phi3ForSequenceClassification(label_heads.SequenceClassification, backbone=Phi3Model, head=LABEL):
    """A label for a text."""


class Phi3ForTokenClassification(label_heads.TokenClassification, backbone=Phi3Model, head=TOKEN):
    """A label for each token."""
