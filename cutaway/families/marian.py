"""Marian (Junczys-Dowmunt et al., 2018), the translators of OPUS-MT: BART's stacks with positions from a formula."""

from __future__ import annotations

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.bart_stack import APART, ATTRIBUTES, DEFAULTS, TRAINED_WITH, WEIGHTS, WITHOUT_EFFECT, bart_stacks
from cutaway.models import seq2seq_heads
from cutaway.models.backbone import EncoderDecoder
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.weight_map import Table


class MarianConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "marian"
    attribute_map = ATTRIBUTES
    outdated = ("num_hidden_layers",)
    defaults = {
        **DEFAULTS, "vocab_size": 58101, "decoder_vocab_size": None, "pad_token_id": 58100, "eos_token_id": 0,
        "decoder_start_token_id": 58100, "forced_eos_token_id": 0, "share_encoder_decoder_embeddings": True,
    }  # fmt: skip
    without_effect = {**WITHOUT_EFFECT, "classifier_dropout": "there is no such head"}
    refused_in_training = TRAINED_WITH


def to_architecture(config: MarianConfig) -> Architecture:
    """The published config -> Architecture."""
    shared = config.flag("share_encoder_decoder_embeddings")
    if config.decoder_vocab_size is None:
        config.decoder_vocab_size = config.vocab_size
    if shared:  # upstream writes it for shared vocabularies too
        config.integer("decoder_vocab_size", config.integer("vocab_size"), config.vocab_size)
    return bart_stacks(config, fixed=True, embedding_norm=False, scales_table=False, shared_tokens=shared)


def _table(architecture: Architecture) -> Table:
    return WEIGHTS if architecture.shared_tokens else APART


FAMILY = Family(to_architecture, _table, "model")


class MarianPreTrainedModel(PreTrainedModel, config=MarianConfig, prefix="model"):
    """Base for a user's own models around a `MarianModel` called `model`."""


class MarianModel(EncoderDecoder, family=FAMILY, config=MarianConfig, prefix="model"):
    """The base model: hidden states."""


class MarianMTModel(
    seq2seq_heads.Seq2SeqLM, backbone=MarianModel, head=Output("lm_head"), logits_bias="final_logits_bias"
):
    """A text from a text."""
