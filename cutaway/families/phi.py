"""Phi (Li et al., 2023): a parallel decoder with partly rotary heads, and a bias in every layer, the output too."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture, Norm
from cutaway.config.config import PretrainedConfig
from cutaway.families.llama_decoder import DEFAULTS, DERIVED, LABEL, TOKEN, USED, decoder
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class PhiConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "phi"
    defaults = {
        **{name: value for name, value in DEFAULTS.items() if name != "rms_norm_eps"}, "vocab_size": 51200,
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "hidden_act": "gelu_new",
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "max_position_embeddings": 2048, "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.5, "qk_layernorm": False, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    derived = DERIVED
    used = USED


def to_architecture(config: PhiConfig) -> Architecture:
    """The published config -> Architecture."""
    norm = Norm("layer", config.number("layer_norm_eps", 0.0, 1.0))
    found = decoder(config, bias=True, out_bias=True, mlp_bias=True, gated=False, norm=norm)
    stack = found.stack
    return replace(
        found,
        stack=replace(
            stack,
            embedding=replace(stack.embedding, dropout=config.number("embd_pdrop", 0.0, 1.0)),
            attention=replace(stack.attention, norm=norm if config.flag("qk_layernorm") else None),
            norm_place="shared",
            dropout=config.number("resid_pdrop", 0.0, 1.0),
        ),
    )


WEIGHTS = {
    "embed.tokens": "embed_tokens",
    "blocks.{i}.attn_norm": "layers.{i}.input_layernorm",
    "blocks.{i}.attn.q": "layers.{i}.self_attn.q_proj",
    "blocks.{i}.attn.k": "layers.{i}.self_attn.k_proj",
    "blocks.{i}.attn.v": "layers.{i}.self_attn.v_proj",
    "blocks.{i}.attn.o": "layers.{i}.self_attn.dense",
    "blocks.{i}.attn.q_norm": "layers.{i}.self_attn.q_layernorm",
    "blocks.{i}.attn.k_norm": "layers.{i}.self_attn.k_layernorm",
    "blocks.{i}.mlp.up": "layers.{i}.mlp.fc1",
    "blocks.{i}.mlp.down": "layers.{i}.mlp.fc2",
    "final_norm": "final_layernorm",
}
FAMILY = Family(to_architecture, WEIGHTS, "model")


class PhiPreTrainedModel(PreTrainedModel, config=PhiConfig, prefix="model"):
    """Base for a user's own models around a `PhiModel` called `model`."""


class PhiModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=PhiConfig, prefix="model"):
    """The base model: hidden states."""


class PhiForCausalLM(lm_heads.CausalLM, backbone=PhiModel, head=Output("lm_head", "")):
    """Which token comes next."""


class PhiForSequenceClassification(label_heads.SequenceClassification, backbone=PhiModel, head=LABEL):
    """A label for a text."""


class PhiForTokenClassification(label_heads.TokenClassification, backbone=PhiModel, head=TOKEN):
    """A label for each token."""
