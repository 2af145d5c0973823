"""mT5 (Xue et al., 2021): T5 v1.1 over a hundred languages."""

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


class MT5Config(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "mt5"
    attribute_map = ATTRIBUTES
    defaults = {
        **DEFAULTS, "vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
        "feed_forward_proj": "gated-gelu",
    }  # fmt: skip
    derived = DERIVED
    without_effect = WITHOUT_EFFECT


def to_architecture(config: MT5Config) -> Architecture:
    """The published config -> Architecture."""
    return t5_stacks(config, scaled=False)


def encoder_only(config: MT5Config) -> Architecture:
    """The encoder of the same config, alone."""
    return replace(to_architecture(config), decoder=None)


FAMILY = Family(to_architecture, weights, "")
ENCODER = Family(encoder_only, encoder_weights, "")


class MT5PreTrainedModel(PreTrainedModel, config=MT5Config, prefix="transformer"):
    """Base for a user's own models around a `MT5Model` called `transformer`."""


class MT5Model(EncoderDecoder, family=FAMILY, config=MT5Config, prefix="transformer"):
    """The base model: hidden states."""


class MT5EncoderModel(Backbone[BaseModelOutput], family=ENCODER, config=MT5Config, prefix="transformer"):
    """The encoder alone."""


class MT5ForConditionalGeneration(seq2seq_heads.Seq2SeqLM, backbone=MT5Model, head=Output("lm_head")):
    """A text from a text."""


class MT5ForSequenceClassification(
    seq2seq_heads.Seq2SeqClassification, backbone=MT5Model, head=LABEL, published="transformer"
):
    """A label for a text."""


class MT5ForTokenClassification(
    label_heads.TokenClassification, backbone=MT5EncoderModel, head=TOKEN, published="transformer"
):
    """A label for each token."""


class MT5ForQuestionAnswering(seq2seq_heads.Seq2SeqQuestionAnswering, backbone=MT5Model, head=SPAN):
    """Where the answer stands."""
