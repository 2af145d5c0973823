"""Marian (Junczys-Dowmunt et al., 2018), the translators of OPUS-MT: BART's stacks with positions from a formula."""

from __future__ import annotations

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import only
from cutaway.families.bart_stack import ATTRIBUTES, DEFAULTS, TRAINED_WITH, WEIGHTS, WITHOUT_EFFECT, bart_stacks
from cutaway.models import seq2seq_heads
from cutaway.models.backbone import EncoderDecoder
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel


class MarianConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "marian"
    attribute_map = ATTRIBUTES
    defaults = {
        **DEFAULTS, "vocab_size": 58101, "decoder_vocab_size": None, "pad_token_id": 58100, "eos_token_id": 0,
        "decoder_start_token_id": 58100, "forced_eos_token_id": 0, "share_encoder_decoder_embeddings": True,
    }  # fmt: skip
    without_effect = {**WITHOUT_EFFECT, "classifier_dropout": "there is no such head"}
    refused_in_training = TRAINED_WITH
    refused = {"share_encoder_decoder_embeddings": only(True)}


def to_architecture(config: MarianConfig) -> Architecture:
    """The published config -> Architecture."""
    if config.decoder_vocab_size is not None:  # upstream writes it for shared vocabularies too
        config.integer("decoder_vocab_size", config.integer("vocab_size"), config.vocab_size)
    return bart_stacks(config, fixed=True, embedding_norm=False, scales_table=False)


FAMILY = Family(to_architecture, WEIGHTS, "model")


class MarianPreTrainedModel(PreTrainedModel, config=MarianConfig, prefix="model"):
    """Base for a user's own models around a `MarianModel` called `model`."""


class MarianModel(EncoderDecoder, family=FAMILY, config=MarianConfig, prefix="model"):
    """The base model: hidden states."""


class MarianMTModel(
    seq2seq_heads.Seq2SeqLM, backbone=MarianModel, head=Output("lm_head"), logits_bias="final_logits_bias"
):
    """A text from a text."""
