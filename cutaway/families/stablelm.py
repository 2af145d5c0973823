"""StableLM (Stability AI, 2024): Llama's decoder with LayerNorm, partly rotary heads, and maybe parallel layers."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture, Norm
from cutaway.config.config import PretrainedConfig
from cutaway.families import llama_decoder
from cutaway.families.llama_decoder import DEFAULTS, DERIVED, LABEL, TOKEN, USED, decoder
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.weight_map import Table
from cutaway.outputs import BaseModelOutputWithPast


class StableLmConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "stablelm"
    defaults = {
        **{name: value for name, value in DEFAULTS.items() if name != "rms_norm_eps"}, "vocab_size": 50304,
        "intermediate_size": 6912, "hidden_size": 2560, "num_key_value_heads": 32, "max_position_embeddings": 4096,
        "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25, "use_qkv_bias": False, "qk_layernorm": False,
        "use_parallel_residual": False, "hidden_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    derived = DERIVED
    used = tuple(name for name in USED if name != "hidden_dropout")


def to_architecture(config: StableLmConfig) -> Architecture:
    """The published config -> Architecture."""
    norm = Norm("layer", config.number("layer_norm_eps", 0.0, 1.0))
    found = decoder(config, bias=config.flag("use_qkv_bias"), norm=norm)
    stack = found.stack
    each = replace(norm, bias=False) if config.flag("qk_layernorm") else None
    return replace(
        found,
        stack=replace(
            stack,
            attention=replace(stack.attention, norm=each, norm_over="parts", out_dropout=0.0),
            norm_place="shared" if config.flag("use_parallel_residual") else "pre",
            dropout=config.number("hidden_dropout", 0.0, 1.0),
        ),
    )


def weights(architecture: Architecture) -> Table:
    """Llama's names, with a norm of its own for each head."""
    attention, own = architecture.stack.attention, {}
    for part, n in (("q", attention.n_heads), ("k", attention.n_kv_heads)):
        for h in range(n):
            own[f"blocks.{{i}}.attn.{part}_norm.norms.{h}"] = f"layers.{{i}}.self_attn.{part}_layernorm.norms.{h}"
    return {**llama_decoder.WEIGHTS, **own}


FAMILY = Family(to_architecture, weights, "model")


class StableLmPreTrainedModel(PreTrainedModel, config=StableLmConfig, prefix="model"):
    """Base for a user's own models around a `StableLmModel` called `model`."""


class StableLmModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=StableLmConfig, prefix="model"):
    """The base model: hidden states."""


class StableLmForCausalLM(lm_heads.CausalLM, backbone=StableLmModel, head=Output("lm_head")):
    """Which token comes next."""


class StableLmForSequenceClassification(label_heads.SequenceClassification, backbone=StableLmModel, head=LABEL):
    """A label for a text."""


class StableLmForTokenClassification(label_heads.TokenClassification, backbone=StableLmModel, head=TOKEN):
    """A label for each token."""
