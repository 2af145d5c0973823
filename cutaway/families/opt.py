"""OPT (Zhang et al., 2022)."""

from __future__ import annotations

from cutaway.config.architecture import (
    ACTIVATIONS,
    Architecture,
    Attention,
    Embedding,
    FeedForward,
    Learned,
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
from cutaway.outputs import BaseModelOutputWithPast


class OPTConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "opt"
    defaults = {
        "vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12, "ffn_dim": 3072,
        "max_position_embeddings": 2048, "do_layer_norm_before": True, "word_embed_proj_dim": None, "dropout": 0.1,
        "attention_dropout": 0.0, "num_attention_heads": 12, "activation_function": "relu", "init_std": 0.02,
        "use_cache": True, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2, "enable_bias": True,
        "layer_norm_elementwise_affine": True,
    }  # fmt: skip
    derived = {"word_embed_proj_dim": lambda config: config.hidden_size}
    used = ("_remove_final_layer_norm",)
    without_effect = dict.fromkeys(("activation_dropout", "output_projection"), "the published model does not read it")
    refused = {"layer_norm_elementwise_affine": only(True)}
    refused_in_training = {"layerdrop": only(None, 0, 0.0)}


def to_architecture(config: OPTConfig) -> Architecture:
    """The published config -> Architecture."""
    narrow = config.word_embed_proj_dim not in (None, config.hidden_size)
    width = config.integer("word_embed_proj_dim", 1, 65_536) if narrow else None
    n_heads, size = config.integer("num_attention_heads", 1, 1024), config.divided("hidden_size", "num_attention_heads")
    bias, pre = config.flag("enable_bias"), config.flag("do_layer_norm_before")
    return Architecture(
        Stack(
            n_layers=config.integer("num_hidden_layers", 1, 1000),
            hidden_size=config.integer("hidden_size", 1, 65_536),
            embedding=Embedding(
                vocab_size=config.integer("vocab_size", 1, 10_000_000),
                positions=Learned(
                    config.integer("max_position_embeddings", 1, 10_000_000), offset=2, skips_hidden=True
                ),
                pad_id=config.pad_token_id,
                width=width,
                projects_tokens=narrow,
            ),
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
                config.integer("ffn_dim", 1, 1_000_000),
                ACTIVATIONS[config.choice("activation_function", ACTIVATIONS)],
                bias=bias,
            ),
            norm=Norm("layer", 1e-5),
            norm_place="pre" if pre else "post",
            final_norm=pre and not config.aside("_remove_final_layer_norm", False),
            causal=True,
            dropout=config.number("dropout", 0.0, 1.0),
            projects_out=narrow,
        ),
        init_std=config.number("init_std", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


WEIGHTS = {
    "embed.tokens": "decoder.embed_tokens",
    "embed.positions": "decoder.embed_positions",
    "project_out": "decoder.project_out",
    "embed.project": "decoder.project_in",
    "final_norm": "decoder.final_layer_norm",
    "blocks.{i}.attn.k": "decoder.layers.{i}.self_attn.k_proj",
    "blocks.{i}.attn.v": "decoder.layers.{i}.self_attn.v_proj",
    "blocks.{i}.attn.q": "decoder.layers.{i}.self_attn.q_proj",
    "blocks.{i}.attn.o": "decoder.layers.{i}.self_attn.out_proj",
    "blocks.{i}.attn_norm": "decoder.layers.{i}.self_attn_layer_norm",
    "blocks.{i}.mlp.up": "decoder.layers.{i}.fc1",
    "blocks.{i}.mlp.down": "decoder.layers.{i}.fc2",
    "blocks.{i}.mlp_norm": "decoder.layers.{i}.final_layer_norm",
}
FAMILY = Family(to_architecture, WEIGHTS, "model")
_LABEL = Classifier("score", pick="last", drops="none", bias=False)

_SPAN = Classifier("qa_outputs", drops="none")


class OPTPreTrainedModel(PreTrainedModel, config=OPTConfig, prefix="model"):
    """Base for a user's own models around a `OPTModel` called `model`."""


class OPTModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=OPTConfig, prefix="model"):
    """The base model: hidden states."""


class OPTForCausalLM(lm_heads.CausalLM, backbone=OPTModel, head=Output("lm_head")):
    """Which token comes next."""


class OPTForSequenceClassification(label_heads.SequenceClassification, backbone=OPTModel, head=_LABEL):
    """A label for a text."""


class OPTForQuestionAnswering(label_heads.QuestionAnswering, backbone=OPTModel, head=_SPAN):
    """Where the answer stands."""
