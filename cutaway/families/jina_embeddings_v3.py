"""Jina Embeddings v3 (Sturua et al., 2024): XLM-RoBERTa with rotary positions."""

from __future__ import annotations

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.rope_table import derived_rope
from cutaway.families.rotary_encoder import DEFAULTS, SPAN, USED, WITHOUT_EFFECT, rotary_encoder, weights
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel


class JinaEmbeddingsV3Config(PretrainedConfig):
    """Published fields: see `defaults`; also `rope_parameters`, or `rope_theta` and `rope_scaling`."""

    model_type = "jina_embeddings_v3"
    defaults = {
        **DEFAULTS, "vocab_size": 250002, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096, "max_position_embeddings": 8194, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    }  # fmt: skip
    derived = derived_rope(20_000.0)
    used = USED
    without_effect = WITHOUT_EFFECT


def to_architecture(config: JinaEmbeddingsV3Config) -> Architecture:
    """The published config -> Architecture."""
    return rotary_encoder(config, 20_000.0, bias=True, gated=False)


_BLOCK = "encoder.layers.{i}"
_TABLE = {
    **weights(_BLOCK, "mixer.Wqkv mixer.out_proj", ("norm1", "norm2"), "emb_ln"),
    "blocks.{i}.mlp.up": f"{_BLOCK}.mlp.fc1",
    "blocks.{i}.mlp.down": f"{_BLOCK}.mlp.fc2",
}
FAMILY = Family(to_architecture, _TABLE, "roberta")
_OUTPUT = Output("lm_head.decoder", bias="lm_head.bias", dense="lm_head.dense", norm="lm_head.layer_norm")
_LABEL = Classifier("classifier.out_proj", pick="first", dense="classifier.dense", drops="both")


class JinaEmbeddingsV3PreTrainedModel(PreTrainedModel, config=JinaEmbeddingsV3Config, prefix="roberta"):
    """Base for a user's own models around a `JinaEmbeddingsV3Model` called `roberta`."""


class JinaEmbeddingsV3Model(Backbone, family=FAMILY, config=JinaEmbeddingsV3Config, prefix="roberta"):
    """The base model: hidden states."""


class JinaEmbeddingsV3ForMaskedLM(lm_heads.MaskedLM, backbone=JinaEmbeddingsV3Model, head=_OUTPUT):
    """Which token belongs at each place."""


class JinaEmbeddingsV3ForSequenceClassification(
    label_heads.SequenceClassification, backbone=JinaEmbeddingsV3Model, head=_LABEL
):
    """A label for a text."""


class JinaEmbeddingsV3ForTokenClassification(
    label_heads.TokenClassification, backbone=JinaEmbeddingsV3Model, head=Classifier()
):
    """A label for each token."""


class JinaEmbeddingsV3ForQuestionAnswering(label_heads.QuestionAnswering, backbone=JinaEmbeddingsV3Model, head=SPAN):
    """Where the answer stands."""
