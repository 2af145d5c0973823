"""M2M-100 (Fan et al., 2021) and NLLB (Costa-jussà et al., 2022): mBART's stacks with positions from a formula."""

from __future__ import annotations

from cutaway.config.architecture import Architecture, Learned
from cutaway.config.config import PretrainedConfig
from cutaway.families.bart_stack import ATTRIBUTES, DEFAULTS, TRAINED_WITH, WEIGHTS, WITHOUT_EFFECT, bart_stacks
from cutaway.models import seq2seq_heads
from cutaway.models.backbone import EncoderDecoder
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel


class M2M100Config(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "m2m_100"
    attribute_map = ATTRIBUTES
    outdated = ("num_hidden_layers",)
    defaults = {
        **DEFAULTS, "vocab_size": 128112, "activation_function": "relu", "attention_dropout": 0.1,
        "scale_embedding": True, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2,
    }  # fmt: skip
    without_effect = {
        **WITHOUT_EFFECT,
        "classifier_dropout": "there is no such head",
    }
    refused_in_training = TRAINED_WITH


def to_architecture(config: M2M100Config) -> Architecture:
    """The published config -> Architecture; as RoBERTa's, the first position used is pad_token_id + 1."""
    offset = config.integer("pad_token_id", 0, 10_000_000) + 1
    size = config.integer("max_position_embeddings", 1, 10_000_000)
    return bart_stacks(
        config, positions=Learned(size, offset, after_padding=True, endless=True), embedding_norm=False, pre=True
    )


FAMILY = Family(to_architecture, WEIGHTS, "model")


class M2M100PreTrainedModel(PreTrainedModel, config=M2M100Config, prefix="model"):
    """Base for a user's own models around a `M2M100Model` called `model`."""


class M2M100Model(EncoderDecoder, family=FAMILY, config=M2M100Config, prefix="model"):
    """The base model: hidden states."""


class M2M100ForConditionalGeneration(seq2seq_heads.Seq2SeqLM, backbone=M2M100Model, head=Output("lm_head")):
    """A text from a text."""
