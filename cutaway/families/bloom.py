"""BLOOM (BigScience, 2022): a decoder whose scores fall with distance (ALiBi), with a norm after the embedding."""

from __future__ import annotations

from cutaway.config.architecture import (
    Alibi,
    Architecture,
    Attention,
    Embedding,
    FeedForward,
    Norm,
    Stack,
)
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import only
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.weight_map import Table, share
from cutaway.outputs import BaseModelOutputWithPast


class BloomConfig(PretrainedConfig):
    """Published fields: see `defaults`; older files call the hidden size `n_embed`."""

    model_type = "bloom"
    attribute_map = {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "n_embed": "hidden_size"}
    defaults = {
        "vocab_size": 250880, "hidden_size": 64, "n_layer": 2, "n_head": 8, "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02, "use_cache": True, "bos_token_id": 1, "eos_token_id": 2, "hidden_dropout": 0.0,
        "attention_dropout": 0.0, "apply_residual_connection_post_layernorm": False,
    }  # fmt: skip
    used = ("classifier_dropout",)
    without_effect = {
        "slow_but_exact": "how other software computes the same numbers",
        **dict.fromkeys(
            ("masked_softmax_fusion", "bias_dropout_fusion", "skip_bias_add", "skip_bias_add_qkv", "offset_alibi",
             "attention_softmax_in_fp32", "n_inner", "seq_length", "max_position_embeddings"),
            "of the training's own software; nobody reads it",
        ),
    }  # fmt: skip
    refused = {"apply_residual_connection_post_layernorm": only(False)}


def to_architecture(config: BloomConfig) -> Architecture:
    """The published config -> Architecture."""
    hidden, n_heads = config.integer("hidden_size", 1, 65_536), config.integer("n_head", 1, 1024)
    size, norm = config.divided("hidden_size", "n_head"), Norm("layer", config.number("layer_norm_epsilon", 0.0, 1.0))
    return Architecture(
        Stack(
            n_layers=config.integer("n_layer", 1, 1000),
            hidden_size=hidden,
            embedding=Embedding(vocab_size=config.integer("vocab_size", 1, 10_000_000), norm=norm),
            attention=Attention(
                n_heads, n_heads, size, size**-0.5, dropout=config.number("attention_dropout", 0.0, 1.0)
            ),
            feed_forward=FeedForward(4 * hidden, "gelu_tanh"),
            norm=norm,
            norm_place="pre",
            final_norm=True,
            causal=True,
            positions=Alibi(),
            dropout=config.number("hidden_dropout", 0.0, 1.0),
        ),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


def weights(architecture: Architecture) -> Table:
    """Queries, keys and values are published as one layer, head by head."""
    whole, n_heads = "h.{i}.self_attention.query_key_value", architecture.stack.attention.n_heads
    return {
        "embed.tokens": "word_embeddings",
        "embed.norm": "word_embeddings_layernorm",
        "blocks.{i}.attn_norm": "h.{i}.input_layernorm",
        **{f"blocks.{{i}}.attn.{part}": share(whole, n, (1, 1, 1), n_heads) for n, part in enumerate("qkv")},
        "blocks.{i}.attn.o": "h.{i}.self_attention.dense",
        "blocks.{i}.mlp_norm": "h.{i}.post_attention_layernorm",
        "blocks.{i}.mlp.up": "h.{i}.mlp.dense_h_to_4h",
        "blocks.{i}.mlp.down": "h.{i}.mlp.dense_4h_to_h",
        "final_norm": "ln_f",
    }


FAMILY = Family(to_architecture, weights, "transformer")
_LABEL = Classifier("score", pick="last", drops="none", bias=False)
_TOKEN = Classifier(dropout=("classifier_dropout", "hidden_dropout"), usual=0.1)
_SPAN = Classifier("qa_outputs", drops="none")


class BloomPreTrainedModel(PreTrainedModel, config=BloomConfig, prefix="transformer"):
    """Base for a user's own models around a `BloomModel` called `transformer`."""


class BloomModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=BloomConfig, prefix="transformer"):
    """The base model: hidden states."""


class BloomForCausalLM(lm_heads.CausalLM, backbone=BloomModel, head=Output("lm_head")):
    """Which token comes next."""


class BloomForSequenceClassification(label_heads.SequenceClassification, backbone=BloomModel, head=_LABEL):
    """A label for a text."""


class BloomForTokenClassification(label_heads.TokenClassification, backbone=BloomModel, head=_TOKEN):
    """A label for each token."""


class BloomForQuestionAnswering(label_heads.QuestionAnswering, backbone=BloomModel, head=_SPAN):
    """Where the answer stands."""
