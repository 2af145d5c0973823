"""GTE (Zhang et al., 2024): BERT with rotary positions and gates, for long texts."""

from __future__ import annotations

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.rope_table import derived_rope
from cutaway.families.rotary_encoder import DEFAULTS, USED, WITHOUT_EFFECT, rotary_encoder, weights
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.weight_map import split


class GteConfig(PretrainedConfig):
    """Published fields: see `defaults`; also `rope_parameters`, or `rope_theta` and `rope_scaling`."""

    model_type = "gte"
    defaults = {
        **DEFAULTS, "vocab_size": 250048, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 8192,
        "type_vocab_size": 1, "pad_token_id": 1,
    }  # fmt: skip
    derived = derived_rope(160_000.0)
    used = USED
    without_effect = WITHOUT_EFFECT


def to_architecture(config: GteConfig) -> Architecture:
    """The published config -> Architecture."""
    return rotary_encoder(config, 160_000.0, bias=True, gated=True, mlp_dropout=True)


_BLOCK = "encoder.layer.{i}"
_TABLE = {
    **weights(_BLOCK, "attention.qkv_proj attention.o_proj", ("attn_ln", "mlp_ln"), "embeddings.LayerNorm"),
    "blocks.{i}.mlp.up": split(f"{_BLOCK}.mlp.up_gate_proj", 0, 2),
    "blocks.{i}.mlp.gate": split(f"{_BLOCK}.mlp.up_gate_proj", 1, 2),
    "blocks.{i}.mlp.down": f"{_BLOCK}.mlp.down_proj",
}
FAMILY = Family(to_architecture, _TABLE, "gte")
_OUTPUT = Output("lm_head.decoder", bias="", dense="lm_head.dense", norm="lm_head.norm")


class GtePreTrainedModel(PreTrainedModel, config=GteConfig, prefix="gte"):
    """Base for a user's own models around a `GteModel` called `gte`."""


class GteModel(Backbone, family=FAMILY, config=GteConfig, prefix="gte", pools=False):
    """The base model: hidden states."""


class GteForMaskedLM(lm_heads.MaskedLM, backbone=GteModel, head=_OUTPUT):
    """Which token belongs at each place."""


class GteForSequenceClassification(label_heads.SequenceClassification, backbone=GteModel, head=Classifier()):
    """A label for a text."""


class GteForTokenClassification(label_heads.TokenClassification, backbone=GteModel, head=Classifier()):
    """A label for each token."""
