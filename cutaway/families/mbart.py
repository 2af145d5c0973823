"""mBART (Liu et al., 2020): BART with norms before the layers, and the language's code in the place of a start."""

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


class MBartConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "mbart"
    attribute_map = ATTRIBUTES
    outdated = ("num_hidden_layers",)
    defaults = {
        **DEFAULTS, "classifier_dropout": 0.0, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
        "forced_eos_token_id": 2,
    }  # fmt: skip
    without_effect = WITHOUT_EFFECT
    refused_in_training = TRAINED_WITH


def to_architecture(config: MBartConfig) -> Architecture:
    """The published config -> Architecture."""
    return bart_stacks(config, pre=True)


FAMILY = Family(to_architecture, WEIGHTS, "model")


class MBartPreTrainedModel(PreTrainedModel, config=MBartConfig, prefix="model"):
    """Base for a user's own models around a `MBartModel` called `model`."""


class MBartModel(EncoderDecoder, family=FAMILY, config=MBartConfig, prefix="model", shifts_input=True, wraps=True):
    """The base model: hidden states."""


class MBartForConditionalGeneration(
    seq2seq_heads.Seq2SeqLM, backbone=MBartModel, head=Output("lm_head"), logits_bias="final_logits_bias"
):
    """A text from a text."""


class MBartForSequenceClassification(seq2seq_heads.Seq2SeqClassification, backbone=MBartModel, head=LABEL):
    """A label for a text."""


class MBartForQuestionAnswering(seq2seq_heads.Seq2SeqQuestionAnswering, backbone=MBartModel, head=SPAN):
    """Where the answer stands."""
