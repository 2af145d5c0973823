"""BART (Lewis et al., 2020)."""

from __future__ import annotations

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.bart_stack import (
    ATTRIBUTES,
    DEFAULTS,
    LABEL,
    SPAN,
    TRAINED_WITH,
    WEIGHTS,
    WITHOUT_EFFECT,
    bart_stacks,
)
from cutaway.models import seq2seq_heads
from cutaway.models.backbone import EncoderDecoder
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel


class BartConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "bart"
    attribute_map = ATTRIBUTES
    outdated = ("num_hidden_layers",)
    defaults = {
        **DEFAULTS, "classifier_dropout": 0.0, "num_labels": 3, "pad_token_id": 1, "bos_token_id": 0,
        "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
    }  # fmt: skip
    without_effect = WITHOUT_EFFECT
    refused_in_training = TRAINED_WITH


def to_architecture(config: BartConfig) -> Architecture:
    """The published config -> Architecture."""
    return bart_stacks(config)


FAMILY = Family(to_architecture, WEIGHTS, "model")


class BartPreTrainedModel(PreTrainedModel, config=BartConfig, prefix="model"):
    """Base for a user's own models around a `BartModel` called `model`."""


class BartModel(EncoderDecoder, family=FAMILY, config=BartConfig, prefix="model", shifts_input=True):
    """The base model: hidden states."""


class BartForConditionalGeneration(
    seq2seq_heads.Seq2SeqLM, backbone=BartModel, head=Output("lm_head"), logits_bias="final_logits_bias"
):
    """A text from a text."""


class BartForSequenceClassification(seq2seq_heads.Seq2SeqClassification, backbone=BartModel, head=LABEL):
    """A label for a text."""


class BartForQuestionAnswering(seq2seq_heads.Seq2SeqQuestionAnswering, backbone=BartModel, head=SPAN):
    """Where the answer stands."""


BartPretrainedModel = PretrainedBartModel = BartPreTrainedModel
