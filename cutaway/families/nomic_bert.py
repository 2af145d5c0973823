"""Nomic Embed (Nussbaum et al., 2024): BERT with rotary positions, gates and no biases."""

from __future__ import annotations

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import only
from cutaway.families.rope_table import derived_rope
from cutaway.families.rotary_encoder import DEFAULTS, USED, WITHOUT_EFFECT, rotary_encoder, weights
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel


class NomicBertConfig(PretrainedConfig):
    """Published fields: see `defaults`; also `rope_parameters`, or `rope_theta` and `rope_scaling`."""

    model_type = "nomic_bert"
    defaults = {
        **DEFAULTS, "vocab_size": 30528, "hidden_act": "silu", "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 2048,
    }  # fmt: skip
    derived = {**derived_rope(1000.0), "head_dim": lambda config: config.hidden_size // config.num_attention_heads}
    # GPT-2's words for the same fields, in the files that the authors published
    attribute_map = {
        "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
        "n_inner": "intermediate_size", "n_positions": "max_position_embeddings",
        "layer_norm_epsilon": "layer_norm_eps", "resid_pdrop": "hidden_dropout_prob",
        "attn_pdrop": "attention_probs_dropout_prob", "rotary_emb_base": "rope_theta",
    }  # fmt: skip
    used = (*USED, "head_dim")
    without_effect = {
        **WITHOUT_EFFECT,
        **dict.fromkeys(
            (
                "dense_seq_output", "fused_dropout_add_ln", "pad_vocab_size_multiple", "use_xentropy",
                "reorder_and_upcast_attn", "max_trained_positions", "last_layer_subset", "summary_type",
                "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_use_proj",
                "parallel_block_tied_norm",
            ),
            "of the authors' own software",
        ),
    }  # fmt: skip
    refused = {
        "activation_function": only("swiglu"), "scale_attn_weights": only(None, True), "embd_pdrop": only(None, 0.0),
        "rotary_emb_fraction": only(1, 1.0), "moe_every_n_layers": only(None, 0),
        **dict.fromkeys(("rotary_emb_scale_base", "rotary_scaling_factor"), only(None)),
        **dict.fromkeys(
            (
                "qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias", "prenorm", "causal", "parallel_block", "use_rms_norm",
                "rotary_emb_interleaved",
            ),
            only(False),
        ),
    }  # fmt: skip


def to_architecture(config: NomicBertConfig) -> Architecture:
    """The published config -> Architecture."""
    return rotary_encoder(config, 1000.0, bias=False, gated=True)


_BLOCK = "encoder.layers.{i}"
_TABLE = {
    **weights(_BLOCK, "attn.Wqkv attn.out_proj", ("norm1", "norm2"), "emb_ln"),
    "blocks.{i}.mlp.up": f"{_BLOCK}.mlp.fc11",
    "blocks.{i}.mlp.gate": f"{_BLOCK}.mlp.fc12",
    "blocks.{i}.mlp.down": f"{_BLOCK}.mlp.fc2",
}
FAMILY = Family(to_architecture, _TABLE, "nomic_bert")
_OUTPUT = Output(
    "cls.predictions.decoder",
    bias="cls.predictions.bias",
    dense="cls.predictions.transform.dense",
    norm="cls.predictions.transform.layer_norm",
    activation="hidden_act",
)


class NomicBertPreTrainedModel(PreTrainedModel, config=NomicBertConfig, prefix="nomic_bert"):
    """Base for a user's own models around a `NomicBertModel` called `nomic_bert`."""


class NomicBertModel(Backbone, family=FAMILY, config=NomicBertConfig, prefix="nomic_bert", pools=False):
    """The base model: hidden states."""


class NomicBertForMaskedLM(lm_heads.MaskedLM, backbone=NomicBertModel, head=_OUTPUT):
    """Which token belongs at each place."""


class NomicBertForSequenceClassification(
    label_heads.SequenceClassification, backbone=NomicBertModel, head=Classifier()
):
    """A label for a text."""


class NomicBertForTokenClassification(label_heads.TokenClassification, backbone=NomicBertModel, head=Classifier()):
    """A label for each token."""
