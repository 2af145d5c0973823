"""GPT-NeoX (Black et al., 2022) and Pythia: attention and feed-forward layer side by side, partly rotary heads."""

from __future__ import annotations

from cutaway.config.architecture import ACTIVATIONS, Architecture, Attention, Embedding, FeedForward, Norm, Stack
from cutaway.config.config import PretrainedConfig
from cutaway.families.rope import rotary
from cutaway.families.rope_table import derived_rope, rope_table, share_of, theta_of
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.weight_map import Table, share
from cutaway.outputs import BaseModelOutputWithPast


class GPTNeoXConfig(PretrainedConfig):
    """Published fields: see `defaults`; also `rope_parameters`, or `rotary_emb_base`, `rotary_pct`, `rope_scaling`."""

    model_type = "gpt_neox"
    attribute_map = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
    defaults = {
        "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
        "intermediate_size": 24576, "hidden_act": "gelu", "attention_dropout": 0.0, "hidden_dropout": 0.0,
        "classifier_dropout": 0.1, "max_position_embeddings": 2048, "initializer_range": 0.02, "layer_norm_eps": 1e-5,
        "use_cache": True, "bos_token_id": 0, "eos_token_id": 2, "tie_word_embeddings": False,
        "use_parallel_residual": True, "attention_bias": True,
    }  # fmt: skip
    derived = {
        **derived_rope(share=0.25),
        "rotary_emb_base": lambda config: theta_of(config, rope_table(config, ""), 10_000.0),
        "rotary_pct": lambda config: share_of(config, rope_table(config, ""), 0.25),
    }
    used = ("rotary_emb_base", "rotary_pct", "rope_scaling", "rope_parameters", "original_max_position_embeddings")


def to_architecture(config: GPTNeoXConfig) -> Architecture:
    """The published config -> Architecture."""
    n_heads, size = config.integer("num_attention_heads", 1, 1024), config.divided("hidden_size", "num_attention_heads")
    dropout, bias = config.number("hidden_dropout", 0.0, 1.0), config.flag("attention_bias")
    return Architecture(
        Stack(
            n_layers=config.integer("num_hidden_layers", 1, 1000),
            hidden_size=config.integer("hidden_size", 1, 65_536),
            embedding=Embedding(vocab_size=config.integer("vocab_size", 1, 10_000_000), dropout=dropout),
            attention=Attention(
                n_heads,
                n_heads,
                size,
                size**-0.5,
                bias=bias,
                out_bias=bias,
                dropout=config.number("attention_dropout", 0.0, 1.0),
            ),
            feed_forward=FeedForward(
                config.integer("intermediate_size", 1, 1_000_000),
                ACTIVATIONS[config.choice("hidden_act", ACTIVATIONS)],
            ),
            norm=Norm("layer", config.number("layer_norm_eps", 0.0, 1.0)),
            norm_place="parallel" if config.flag("use_parallel_residual") else "pre",
            final_norm=True,
            causal=True,
            positions=rotary(config, size),
            dropout=dropout,
        ),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


def weights(architecture: Architecture) -> Table:
    """Queries, keys and values are published as one layer, head by head."""
    n_heads = architecture.stack.attention.n_heads
    whole = "layers.{i}.attention.query_key_value"
    return {
        "embed.tokens": "embed_in",
        "blocks.{i}.attn_norm": "layers.{i}.input_layernorm",
        "blocks.{i}.mlp_norm": "layers.{i}.post_attention_layernorm",
        **{f"blocks.{{i}}.attn.{c}": share(whole, n, (1, 1, 1), n_heads) for n, c in enumerate("qkv")},
        "blocks.{i}.attn.o": "layers.{i}.attention.dense",
        "blocks.{i}.mlp.up": "layers.{i}.mlp.dense_h_to_4h",
        "blocks.{i}.mlp.down": "layers.{i}.mlp.dense_4h_to_h",
        "final_norm": "final_layer_norm",
    }


FAMILY = Family(to_architecture, weights, "gpt_neox")
_LABEL = Classifier("score", pick="last", drops="none", bias=False)
_TOKEN = Classifier(dropout=("classifier_dropout",))
_SPAN = Classifier("qa_outputs", drops="none")


class GPTNeoXPreTrainedModel(PreTrainedModel, config=GPTNeoXConfig, prefix="gpt_neox"):
    """Base for a user's own models around a `GPTNeoXModel` called `gpt_neox`."""


class GPTNeoXModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=GPTNeoXConfig, prefix="gpt_neox"):
    """The base model: hidden states."""


class GPTNeoXForCausalLM(lm_heads.CausalLM, backbone=GPTNeoXModel, head=Output("lm_head", stored="embed_out")):
    """Which token comes next."""


class GPTNeoXForSequenceClassification(label_heads.SequenceClassification, backbone=GPTNeoXModel, head=_LABEL):
    """A label for a text."""


class GPTNeoXForTokenClassification(label_heads.TokenClassification, backbone=GPTNeoXModel, head=_TOKEN):
    """A label for each token."""


class GPTNeoXForQuestionAnswering(label_heads.QuestionAnswering, backbone=GPTNeoXModel, head=_SPAN):
    """Where the answer stands."""
