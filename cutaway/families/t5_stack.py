"""The encoder and decoder that T5 published, with its config fields and heads; its families differ in a few choices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
from cutaway.errors import ConfigError
from cutaway.models.label_heads import Classifier

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

ATTRIBUTES = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}
DEFAULTS: dict[str, Any] = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6,
    "num_decoder_layers": None, "num_heads": 8, "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128, "dropout_rate": 0.1, "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0, "feed_forward_proj": "relu", "is_encoder_decoder": True, "use_cache": True,
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "classifier_dropout": 0.0,
}  # fmt: skip
DERIVED: dict[str, object] = {
    "num_decoder_layers": lambda config: config.num_layers,
    "dense_act_fn": lambda config: _activation(config)[1],
    "is_gated_act": lambda config: _activation(config)[0],
}
WITHOUT_EFFECT = dict.fromkeys(("dense_act_fn", "is_gated_act", "n_positions"), "other fields say it")
TOKEN = Classifier(dropout=("classifier_dropout",))
LABEL = Classifier(
    "classification_head.out_proj", "eos", "classification_head.dense", dropout=("classifier_dropout",), drops="both"
)
SPAN = Classifier("qa_outputs", drops="none")


def _activation(config: PretrainedConfig) -> tuple[bool, str]:
    """(whether there is a gate, the activation's name) of `feed_forward_proj`."""
    gated, _, kind = str(config.feed_forward_proj).rpartition("-")
    if gated not in ("", "gated") or kind not in ACTIVATIONS:
        raise ConfigError(
            f"feed_forward_proj is {config.feed_forward_proj!r}; it must be such as 'relu' or 'gated-gelu'."
        )
    # the published "gated-gelu" is the tanh form
    return bool(gated), "gelu_new" if gated and kind == "gelu" else kind


def t5_stacks(config: PretrainedConfig, *, scaled: bool, per_layer: bool = False) -> Architecture:
    """The encoder-decoder of Raffel et al. (2020). Attention is not scaled: the published weights already are.

    Args:
        scaled: whether an output that is tied to the table of tokens is scaled.
        per_layer: whether each layer has a table of distances of its own (Chung et al., 2023).
    """
    hidden, n_heads = config.integer("d_model", 1, 65_536), config.integer("num_heads", 1, 1024)
    gated, kind = _activation(config)
    dropout = config.number("dropout_rate", 0.0, 1.0)
    buckets = config.integer("relative_attention_num_buckets", 4, 100_000)
    farthest = config.integer("relative_attention_max_distance", 4, 10_000_000)
    if farthest <= buckets // 2:  # a decoder has one bucket for each of the first buckets // 2 distances
        fields = "relative_attention_max_distance is {}; it must be over half of relative_attention_num_buckets, {}."
        raise ConfigError(fields.format(farthest, buckets))
    encoder = Stack(
        n_layers=config.integer("num_layers", 1, 1000),
        hidden_size=hidden,
        embedding=Embedding(vocab_size=config.integer("vocab_size", 1, 10_000_000), dropout=dropout),
        attention=Attention(
            n_heads, n_heads, config.integer("d_kv", 1, 4096), 1.0, bias=False, out_bias=False, dropout=dropout
        ),
        feed_forward=FeedForward(
            config.integer("d_ff", 1, 1_000_000),
            ACTIVATIONS[kind],
            gated=gated,
            bias=False,
            dropout=dropout,
        ),
        norm=Norm("rms", config.number("layer_norm_epsilon", 0.0, 1.0)),
        norm_place="pre",
        final_norm=True,
        positions=Relative(buckets, farthest, per_layer),
        dropout=dropout,
        float16_bound="additions",
    )
    deep = encoder.n_layers if config.num_decoder_layers is None else config.integer("num_decoder_layers", 1, 1000)
    tied = config.flag("tie_word_embeddings")
    return Architecture(
        encoder,
        decoder=replace(encoder, n_layers=deep, causal=True, cross=True),
        init_std=0.02 * config.number("initializer_factor", 0.0, 100.0),
        tied_output=tied,
        output_scale=hidden**-0.5 if tied and scaled else 1.0,
    )
