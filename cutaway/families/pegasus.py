"""PEGASUS (Zhang et al., 2020): BART's stacks with norms before the layers and positions from a formula."""

from __future__ import annotations

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.bart_stack import ATTRIBUTES, DEFAULTS, TRAINED_WITH, WEIGHTS, WITHOUT_EFFECT, bart_stacks
from cutaway.models import seq2seq_heads
from cutaway.models.backbone import EncoderDecoder
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel


class PegasusConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "pegasus"
    attribute_map = ATTRIBUTES
    outdated = ("num_hidden_layers",)
    defaults = {
        **DEFAULTS, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1,
    }  # fmt: skip
    without_effect = {**WITHOUT_EFFECT, "classifier_dropout": "there is no such head"}
    refused_in_training = TRAINED_WITH


def to_architecture(config: PegasusConfig) -> Architecture:
    """The published config -> Architecture."""
    return bart_stacks(config, fixed=True, embedding_norm=False, pre=True, scales_table=False)


FAMILY = Family(to_architecture, WEIGHTS, "model")


class PegasusPreTrainedModel(PreTrainedModel, config=PegasusConfig, prefix="model"):
    """Base for a user's own models around a `PegasusModel` called `model`."""


class PegasusModel(EncoderDecoder, family=FAMILY, config=PegasusConfig, prefix="model"):
    """The base model: hidden states."""


class PegasusForConditionalGeneration(
    seq2seq_heads.Seq2SeqLM, backbone=PegasusModel, head=Output("lm_head"), logits_bias="final_logits_bias"
):
    """A text from a text."""
