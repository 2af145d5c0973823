"""T5 (Raffel et al., 2020) and T5 v1.1 (gated feed-forward, output not tied)."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.t5_stack import ATTRIBUTES, DEFAULTS, DERIVED, LABEL, SPAN, TOKEN, WITHOUT_EFFECT, t5_stacks
from cutaway.families.t5_weights import encoder_weights, weights
from cutaway.models import label_heads, seq2seq_heads
from cutaway.models.backbone import Backbone, EncoderDecoder
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutput


class T5Config(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "t5"
    attribute_map = ATTRIBUTES
    defaults = DEFAULTS
    derived = {**DERIVED, "scale_decoder_outputs": lambda config: config.tie_word_embeddings is not False}
    used = ("scale_decoder_outputs",)
    without_effect = WITHOUT_EFFECT


def to_architecture(config: T5Config) -> Architecture:
    """The published config -> Architecture."""
    return t5_stacks(config, scaled=bool(config.scale_decoder_outputs))


def encoder_only(config: T5Config) -> Architecture:
    """The encoder of the same config, alone."""
    return replace(to_architecture(config), decoder=None)


FAMILY = Family(to_architecture, weights, "")
ENCODER = Family(encoder_only, encoder_weights, "")


class T5PreTrainedModel(PreTrainedModel, config=T5Config, prefix="transformer"):
    """Base for a user's own models around a `T5Model` called `transformer`."""


class T5Model(EncoderDecoder, family=FAMILY, config=T5Config, prefix="transformer"):
    """The base model: hidden states."""


class T5EncoderModel(Backbone[BaseModelOutput], family=ENCODER, config=T5Config, prefix="transformer"):
    """The encoder alone."""


class T5ForConditionalGeneration(seq2seq_heads.Seq2SeqLM, backbone=T5Model, head=Output("lm_head")):
    """A text from a text."""


class T5ForSequenceClassification(
    seq2seq_heads.Seq2SeqClassification, backbone=T5Model, head=LABEL, published="transformer"
):
    """A label for a text."""


class T5ForTokenClassification(
    label_heads.TokenClassification, backbone=T5EncoderModel, head=TOKEN, published="transformer"
):
    """A label for each token."""


class T5ForQuestionAnswering(seq2seq_heads.Seq2SeqQuestionAnswering, backbone=T5Model, head=SPAN):
    """Where the answer stands."""
