"""MPNet (Song et al., 2020): BERT's encoder with RoBERTa's positions and T5's bias by distance."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture, Learned, Relative
from cutaway.config.config import PretrainedConfig
from cutaway.families.bert_encoder import DEFAULTS, ENCODERS_ONLY, WEIGHTS, WITHOUT_EFFECT, bert_stack
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel


class MPNetConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "mpnet"
    defaults = {
        **DEFAULTS, "vocab_size": 30527, "type_vocab_size": 0, "relative_attention_num_buckets": 32,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    }  # fmt: skip
    without_effect = {
        **WITHOUT_EFFECT,
        **dict.fromkeys(("is_decoder", "classifier_dropout", "use_cache"), "not a field of MPNet"),
    }
    refused = ENCODERS_ONLY


def to_architecture(config: MPNetConfig) -> Architecture:
    """The published config -> Architecture. Whatever the config says, positions skip the id 1 and start at 2."""
    positions = Learned(config.integer("max_position_embeddings", 3, 10_000_000), 2, after_padding=True)
    stack = bert_stack(config, positions)
    # the published model computes with 32 buckets, whatever the size of the table
    config.integer("relative_attention_num_buckets", 32, 32)
    return Architecture(
        replace(stack, causal=False, embedding=replace(stack.embedding, pad_id=1), positions=Relative(32, 128)),
        pooler=True,
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


_TABLE = {
    **WEIGHTS,
    **{f"blocks.{{i}}.attn.{part}": f"encoder.layer.{{i}}.attention.attn.{part}" for part in "qkvo"},
    "blocks.{i}.attn_norm": "encoder.layer.{i}.attention.LayerNorm",
    "relative": "encoder.relative_attention_bias",
}
FAMILY = Family(to_architecture, _TABLE, "mpnet")
_DROPOUT = ("hidden_dropout_prob",)
_OUTPUT = Output("lm_head.decoder", bias="lm_head.bias", dense="lm_head.dense", norm="lm_head.layer_norm")
_LABEL = Classifier("classifier.out_proj", "first", "classifier.dense", dropout=_DROPOUT, drops="both")
_TOKEN = Classifier(dropout=_DROPOUT)
_SPAN = Classifier("qa_outputs", drops="none")


class MPNetPreTrainedModel(PreTrainedModel, config=MPNetConfig, prefix="mpnet"):
    """Base for a user's own models around a `MPNetModel` called `mpnet`."""


class MPNetModel(Backbone, family=FAMILY, config=MPNetConfig, prefix="mpnet"):
    """The base model: hidden states."""


class MPNetForMaskedLM(lm_heads.MaskedLM, backbone=MPNetModel, head=_OUTPUT):
    """Which token belongs at each place."""


class MPNetForSequenceClassification(label_heads.SequenceClassification, backbone=MPNetModel, head=_LABEL):
    """A label for a text."""


class MPNetForTokenClassification(label_heads.TokenClassification, backbone=MPNetModel, head=_TOKEN):
    """A label for each token."""


class MPNetForQuestionAnswering(label_heads.QuestionAnswering, backbone=MPNetModel, head=_SPAN):
    """Where the answer stands."""


class MPNetForMultipleChoice(label_heads.MultipleChoice, backbone=MPNetModel, head=_TOKEN):
    """Which text is right."""
