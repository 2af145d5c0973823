"""EuroBERT (Boizard et al., 2025): Llama's blocks, in which each token sees all others."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.llama_decoder import DEFAULTS, DERIVED, WEIGHTS, WITHOUT_EFFECT, decoder
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import ByFlag, Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutput


class EuroBertConfig(PretrainedConfig):
    """Published fields: see `defaults`; also `rope_parameters`, or `rope_theta` and `rope_scaling`, and `head_dim`."""

    model_type = "eurobert"
    defaults = {
        **DEFAULTS, "vocab_size": 128256, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "pad_token_id": 128001,
        "bos_token_id": 128000, "eos_token_id": 128001, "attention_bias": False, "mlp_bias": False,
        "classifier_pooling": "late",
    }  # fmt: skip
    derived = DERIVED
    used = (
        "head_dim", "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor",
        "original_max_position_embeddings",
    )  # fmt: skip
    without_effect = {
        **WITHOUT_EFFECT,
        **dict.fromkeys(("use_cache", "is_decoder"), "these models read the whole text at once"),
        **dict.fromkeys(("hidden_dropout", "clf_pooling", "classifier_dropout"), "nobody reads it"),
    }


def to_architecture(config: EuroBertConfig) -> Architecture:
    """The published config -> Architecture."""
    bias = config.flag("attention_bias")
    built = decoder(config, bias=bias, out_bias=bias, mlp_bias=config.flag("mlp_bias"))
    return replace(built, stack=replace(built.stack, causal=False))


FAMILY = Family(to_architecture, WEIGHTS, "model")
_LABEL = Classifier(
    "classifier", "first", "dense", "gelu", drops="none", pick_field="classifier_pooling",
    picks=("bos", "mean", "late"),
)  # fmt: skip


class EuroBertPreTrainedModel(PreTrainedModel, config=EuroBertConfig, prefix="model"):
    """Base for a user's own models around a `EuroBertModel` called `model`."""


class EuroBertModel(Backbone[BaseModelOutput], family=FAMILY, config=EuroBertConfig, prefix="model"):
    """The base model: hidden states."""


class EuroBertForMaskedLM(
    lm_heads.MaskedLM, backbone=EuroBertModel, head=ByFlag("mlp_bias", Output("lm_head", bias=""), Output("lm_head"))
):
    """Which token belongs at each place."""


class EuroBertForSequenceClassification(label_heads.SequenceClassification, backbone=EuroBertModel, head=_LABEL):
    """A label for a text."""


class EuroBertForTokenClassification(
    label_heads.TokenClassification, backbone=EuroBertModel, head=Classifier(drops="none")
):
    """A label for each token."""
