"""T5 (Raffel et al., 2020) and T5 v1.1 (gated feed-forward, output not tied)."""

from __future__ import annotations

from dataclasses import replace

from cutaway.architecture import ACTIVATIONS, Architecture, Attention, Embedding, FeedForward, Norm, Relative, Stack
from cutaway.config import PretrainedConfig
from cutaway.errors import ConfigError
from cutaway.model.backbone import Backbone, EncoderDecoder
from cutaway.model.family import Family
from cutaway.model.heads import Classifier, Output, TokenClassification
from cutaway.model.pretrained import PreTrainedModel
from cutaway.model.seq2seq import Seq2SeqClassification, Seq2SeqLM, Seq2SeqQuestionAnswering


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
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_decoder_layers": None,
        "num_heads": 8,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6,
        "initializer_factor": 1.0,
        "feed_forward_proj": "relu",
        "is_encoder_decoder": True,
        "use_cache": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "classifier_dropout": 0.0,
    }


def to_architecture(config: T5Config) -> Architecture:
    """The published config -> Architecture. Attention is not scaled: the published weights already are."""
    hidden, n_heads = config.integer("d_model", 1, 65_536), config.integer("num_heads", 1, 1024)
    gated, _, kind = str(config.feed_forward_proj).rpartition("-")
    if gated not in ("", "gated") or kind not in ACTIVATIONS:
        raise ConfigError(
            f"feed_forward_proj is {config.feed_forward_proj!r}; it must be such as 'relu' or 'gated-gelu'."
        )
    dropout = config.number("dropout_rate", 0.0, 1.0)
    encoder = Stack(
        n_layers=config.integer("num_layers", 1, 1000),
        hidden_size=hidden,
        embedding=Embedding(vocab_size=config.integer("vocab_size", 1, 10_000_000), pad_id=config.pad_token_id),
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
        positions=Relative(
            config.integer("relative_attention_num_buckets", 4, 100_000),
            config.integer("relative_attention_max_distance", 4, 10_000_000),
        ),
        dropout=dropout,
    )
    deep = config.num_layers if config.num_decoder_layers is None else config.integer("num_decoder_layers", 1, 1000)
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


_ENCODER = {
    "blocks.{i}.attn_norm": "block.{i}.layer.0.layer_norm",
    "blocks.{i}.attn.q": "block.{i}.layer.0.SelfAttention.q",
    "blocks.{i}.attn.k": "block.{i}.layer.0.SelfAttention.k",
    "blocks.{i}.attn.v": "block.{i}.layer.0.SelfAttention.v",
    "blocks.{i}.attn.o": "block.{i}.layer.0.SelfAttention.o",
    "relative": "block.0.layer.0.SelfAttention.relative_attention_bias",
    "final_norm": "final_layer_norm",
}
_CROSS = {
    "blocks.{i}.cross_norm": "block.{i}.layer.1.layer_norm",
    "blocks.{i}.cross.q": "block.{i}.layer.1.EncDecAttention.q",
    "blocks.{i}.cross.k": "block.{i}.layer.1.EncDecAttention.k",
    "blocks.{i}.cross.v": "block.{i}.layer.1.EncDecAttention.v",
    "blocks.{i}.cross.o": "block.{i}.layer.1.EncDecAttention.o",
}


def _table(prefix: str, feed_forward: int, gated: bool, parts: dict[str, str]) -> dict[str, str]:
    inside = f"block.{{i}}.layer.{feed_forward}"
    names = {
        **parts,
        "blocks.{i}.mlp_norm": f"{inside}.layer_norm",
        "blocks.{i}.mlp.gate": f"{inside}.DenseReluDense.wi_0",
        "blocks.{i}.mlp.up": f"{inside}.DenseReluDense.wi_1" if gated else f"{inside}.DenseReluDense.wi",
        "blocks.{i}.mlp.down": f"{inside}.DenseReluDense.wo",
    }
    return {f"{prefix}{ours}": f"{prefix}{theirs}" for ours, theirs in names.items()}


def weights(architecture: Architecture) -> dict[str, str]:
    """The names depend on whether the feed-forward layer is gated."""
    gated = architecture.stack.feed_forward.gated
    return {
        "encoder.embed.tokens": "shared",
        "decoder.embed.tokens": "shared",
        **_table("encoder.", 1, gated, _ENCODER),
        **_table("decoder.", 2, gated, {**_ENCODER, **_CROSS}),
    }


def encoder_weights(architecture: Architecture) -> dict[str, str]:
    """The encoder alone keeps its published names."""
    table = _table("encoder.", 1, architecture.stack.feed_forward.gated, _ENCODER)
    return {"embed.tokens": "shared", **{ours.removeprefix("encoder."): theirs for ours, theirs in table.items()}}


FAMILY = Family(to_architecture, weights, "")


class T5PreTrainedModel(PreTrainedModel):
    """Base for a user's own models around a `T5Model` called `transformer`."""

    config_class = T5Config
    base_model_prefix = "transformer"


class T5Model(EncoderDecoder):
    family = FAMILY
    config_class = T5Config
    base_model_prefix = "transformer"


class T5EncoderModel(Backbone):
    family = Family(encoder_only, encoder_weights, "")
    config_class = T5Config
    base_model_prefix = "transformer"


class T5ForConditionalGeneration(Seq2SeqLM):
    backbone = T5Model
    head = Output("lm_head")


class T5ForSequenceClassification(Seq2SeqClassification):
    backbone = T5Model
    published_base = "transformer"
    head = Classifier(
        "classification_head.out_proj",
        pick="eos",
        dense="classification_head.dense",
        dropout=("classifier_dropout",),
        drops="both",
    )


class T5ForTokenClassification(TokenClassification):
    backbone = T5EncoderModel
    published_base = "transformer"
    head = Classifier(dropout=("classifier_dropout",))


class T5ForQuestionAnswering(Seq2SeqQuestionAnswering):
    backbone = T5Model
    head = Classifier("qa_outputs", drops="none")
