"""Falcon (TII, 2023): parallel layers, keys and values shared by many heads, rotary positions or ALiBi."""

from __future__ import annotations

from cutaway.config.architecture import (
    ACTIVATIONS,
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
from cutaway.errors import ConfigError
from cutaway.families.rope import rotary
from cutaway.families.rope_table import derived_rope
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.weight_map import Table, share
from cutaway.outputs import BaseModelOutputWithPast


class FalconConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "falcon"
    attribute_map = {"n_embed": "hidden_size"}
    defaults = {
        "vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
        "num_ln_in_parallel_attn": None, "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "use_cache": True,
        "hidden_dropout": 0.0, "attention_dropout": 0.0, "num_kv_heads": None, "alibi": False,
        "new_decoder_architecture": False, "multi_query": True, "parallel_attn": True, "bias": False,
        "max_position_embeddings": 2048, "bos_token_id": 11, "eos_token_id": 11, "ffn_hidden_size": None,
        "activation": "gelu",
    }  # fmt: skip
    derived = {
        "num_kv_heads": lambda config: config.num_attention_heads,
        "ffn_hidden_size": lambda config: 4 * config.hidden_size,
        "head_dim": lambda config: config.hidden_size // config.num_attention_heads,
        "rotary": lambda config: not config.alibi,
        **derived_rope(),
    }  # fmt: skip
    used = ("rope_theta", "rope_scaling", "rope_parameters", "original_max_position_embeddings", "classifier_dropout")
    refused = {"apply_residual_connection_post_layernorm": only(None, False)}
    refused_in_training = {"hidden_dropout": only(0, 0.0)}  # it drops from the sum of both layers


def to_architecture(config: FalconConfig) -> Architecture:
    """The published config -> Architecture."""
    hidden, n_heads = config.integer("hidden_size", 1, 65_536), config.integer("num_attention_heads", 1, 1024)
    size, bias, alibi = config.divided("hidden_size", "num_attention_heads"), config.flag("bias"), config.flag("alibi")
    new, parallel = config.flag("new_decoder_architecture"), config.flag("parallel_attn")
    inner = 4 * hidden if config.ffn_hidden_size is None else config.integer("ffn_hidden_size", 1, 1_000_000)
    norms = config.num_ln_in_parallel_attn
    norms = (2 if new else 1) if norms is None else config.integer("num_ln_in_parallel_attn", 1, 2)
    if (new and not parallel) or (norms == 2 and not new):
        raise ConfigError(
            "new_decoder_architecture goes with parallel_attn, and num_ln_in_parallel_attn = 2 with it; upstream has "
            "no forward pass for another choice."
        )
    n_kv = n_heads if config.num_kv_heads is None else config.integer("num_kv_heads", 1, n_heads)
    n_kv = 1 if config.flag("multi_query") and not new else n_kv
    if n_heads % n_kv or (not new and n_kv not in (1, n_heads)):
        raise ConfigError(f"num_kv_heads is {n_kv}, by which num_attention_heads, {n_heads}, cannot be shared here.")
    drop, dropout = config.number("attention_dropout", 0.0, 1.0), config.number("hidden_dropout", 0.0, 1.0)
    return Architecture(
        Stack(
            n_layers=config.integer("num_hidden_layers", 1, 1000),
            hidden_size=hidden,
            embedding=Embedding(vocab_size=config.integer("vocab_size", 1, 10_000_000)),
            attention=Attention(
                n_heads,
                n_kv,
                size,
                size**-0.5,
                bias=bias,
                out_bias=bias,
                dropout=drop if alibi else 0.0,
                out_dropout=dropout if parallel else drop,
            ),
            feed_forward=FeedForward(inner, ACTIVATIONS[config.choice("activation", ACTIVATIONS)], bias=bias),
            norm=Norm("layer", config.number("layer_norm_epsilon", 0.0, 1.0)),
            norm_place="pre" if not parallel else "shared" if norms == 1 else "parallel",
            final_norm=True,
            causal=True,
            positions=Alibi(size**-0.5, rounded=True) if alibi else rotary(config, size),
            dropout=dropout,
        ),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


def weights(architecture: Architecture) -> Table:
    """Queries, keys and values are published as one layer, by the heads that share keys; norms have two names."""
    stack = architecture.stack
    n_heads, n_kv, two = stack.attention.n_heads, stack.attention.n_kv_heads, stack.norm_place == "parallel"
    whole, shares = "h.{i}.self_attention.query_key_value", (n_heads // n_kv, 1, 1)
    return {
        "embed.tokens": "word_embeddings",
        "blocks.{i}.attn_norm": "h.{i}.ln_attn" if two else "h.{i}.input_layernorm",
        **{f"blocks.{{i}}.attn.{part}": share(whole, n, shares, n_kv) for n, part in enumerate("qkv")},
        "blocks.{i}.attn.o": "h.{i}.self_attention.dense",
        "blocks.{i}.mlp_norm": "h.{i}.ln_mlp" if two else "h.{i}.post_attention_layernorm",
        "blocks.{i}.mlp.up": "h.{i}.mlp.dense_h_to_4h",
        "blocks.{i}.mlp.down": "h.{i}.mlp.dense_4h_to_h",
        "final_norm": "ln_f",
    }


FAMILY = Family(to_architecture, weights, "transformer")
_LABEL = Classifier("score", pick="last", drops="none", bias=False)
_TOKEN = Classifier(dropout=("classifier_dropout", "hidden_dropout"), usual=0.1)
_SPAN = Classifier("qa_outputs", drops="none")


class FalconPreTrainedModel(PreTrainedModel, config=FalconConfig, prefix="transformer"):
    """Base for a user's own models around a `FalconModel` called `transformer`."""


class FalconModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=FalconConfig, prefix="transformer"):
    """The base model: hidden states."""


class FalconForCausalLM(lm_heads.CausalLM, backbone=FalconModel, head=Output("lm_head")):
    """Which token comes next."""


class FalconForSequenceClassification(label_heads.SequenceClassification, backbone=FalconModel, head=_LABEL):
    """A label for a text."""


class FalconForTokenClassification(label_heads.TokenClassification, backbone=FalconModel, head=_TOKEN):
    """A label for each token."""


class FalconForQuestionAnswering(label_heads.QuestionAnswering, backbone=FalconModel, head=_SPAN):
    """Where the answer stands."""
