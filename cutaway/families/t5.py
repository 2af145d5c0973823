"""T5 (Raffel et al., 2020) and T5 v1.1 (gated feed-forward, output not tied)."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import (
    ACTIVATIONS,
    Architecture,
    Attention,
    Embedding,
    FeedForward,
    Norm,
    Relative,
    Stack,
)
from cutaway.config.config import PretrainedConfig
from cutaway.errors import ConfigError
from cutaway.families.t5_weights import encoder_weights, weights
from cutaway.models import label_heads, seq2seq_heads
from cutaway.models.backbone import Backbone, EncoderDecoder
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutput


class T5Config(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "t5"
    attribute_map = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    }
    defaults = {
        "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6,
        "num_decoder_layers": None, "num_heads": 8, "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128, "dropout_rate": 0.1, "layer_norm_epsilon": 1e-6,
        "initializer_factor": 1.0, "feed_forward_proj": "relu", "is_encoder_decoder": True, "use_cache": True,
        "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "classifier_dropout": 0.0,
    }  # fmt: skip
    used = ("scale_decoder_outputs",)
    without_effect = dict.fromkeys(("dense_act_fn", "is_gated_act", "n_positions"), "other fields say it")


def to_architecture(config: T5Config) -> Architecture:
    """The published config -> Architecture. Attention is not scaled: the published weights already are."""
    hidden, n_heads = config.integer("d_model", 1, 65_536), config.integer("num_heads", 1, 1024)
    gated, _, kind = str(config.feed_forward_proj).rpartition("-")
    if gated not in ("", "gated") or kind not in ACTIVATIONS:
        raise ConfigError(
            f"feed_forward_proj is {config.feed_forward_proj!r}; it must be such as 'relu' or 'gated-gelu'."
        )
    dropout = config.number("dropout_rate", 0.0, 1.0)
    buckets = config.integer("relative_attention_num_buckets", 4, 100_000)
    farthest = config.integer("relative_attention_max_distance", 4, 10_000_000)
    if farthest <= buckets // 2:  # a decoder has one bucket for each of the first buckets // 2 distances
        fields = "relative_attention_max_distance is {}; it must be over half of relative_attention_num_buckets, {}."
        raise ConfigError(fields.format(farthest, buckets))
    encoder = Stack(
        n_layers=config.integer("num_layers", 1, 1000),
        hidden_size=hidden,
        embedding=Embedding(
            vocab_size=config.integer("vocab_size", 1, 10_000_000), pad_id=config.pad_token_id, dropout=dropout
        ),
        attention=Attention(
            n_heads, n_heads, config.integer("d_kv", 1, 4096), 1.0, bias=False, out_bias=False, dropout=dropout
        ),
        feed_forward=FeedForward(
            config.integer("d_ff", 1, 1_000_000),
            # the published "gated-gelu" is the tanh form
            ACTIVATIONS["gelu_new" if gated and kind == "gelu" else kind],
            gated=bool(gated),
            bias=False,
            dropout=dropout,
        ),
        norm=Norm("rms", config.number("layer_norm_epsilon", 0.0, 1.0)),
        norm_place="pre",
        final_norm=True,
        positions=Relative(buckets, farthest),
        dropout=dropout,
        float16_bound="additions",
    )
    deep = encoder.n_layers if config.num_decoder_layers is None else config.integer("num_decoder_layers", 1, 1000)
    tied = config.flag("tie_word_embeddings")
    scaled = tied and getattr(config, "scale_decoder_outputs", True)
    return Architecture(
        encoder,
        decoder=replace(encoder, n_layers=deep, causal=True, cross=True),
        init_std=0.02 * config.number("initializer_factor", 0.0, 100.0),
        tied_output=tied,
        output_scale=hidden**-0.5 if scaled else 1.0,
    )


def encoder_only(config: T5Config) -> Architecture:
    """The encoder of the same config, alone."""
    return replace(to_architecture(config), decoder=None)


FAMILY = Family(to_architecture, weights, "")
ENCODER = Family(encoder_only, encoder_weights, "")
_TOKEN = Classifier(dropout=("classifier_dropout",))
_LABEL = Classifier(
    "classification_head.out_proj", "eos", "classification_head.dense", dropout=("classifier_dropout",), drops="both"
)
_SPAN = Classifier("qa_outputs", drops="none")


class T5PreTrainedModel(PreTrainedModel, config=T5Config, prefix="transformer"):
    """Base for a user's own models around a `T5Model` called `transformer`."""


class T5Model(EncoderDecoder, family=FAMILY, config=T5Config, prefix="transformer"):
    """The base model: hidden states."""


class T5EncoderModel(Backbone[BaseModelOutput], family=ENCODER, config=T5Config, prefix="transformer"):
    """The encoder alone."""


class T5ForConditionalGeneration(seq2seq_heads.Seq2SeqLM, backbone=T5Model, head=Output("lm_head")):
    """A text from a text."""


class T5ForSequenceClassification(
    seq2seq_heads.Seq2SeqClassification, backbone=T5Model, head=_LABEL, published="transformer"
):
    """A label for a text."""


class T5ForTokenClassification(
    label_heads.TokenClassification, backbone=T5EncoderModel, head=_TOKEN, published="transformer"
):
    """A label for each token."""


class T5ForQuestionAnswering(seq2seq_heads.Seq2SeqQuestionAnswering, backbone=T5Model, head=_SPAN):
    """Where the answer stands."""
