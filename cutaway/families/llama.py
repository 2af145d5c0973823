"""Llama (Touvron et al., 2023) and the many models published in its format."""

from __future__ import annotations

from cutaway.architecture import ACTIVATIONS, Architecture, Attention, Embedding, FeedForward, Norm, Stack
from cutaway.config import PretrainedConfig
from cutaway.errors import ConfigError
from cutaway.families.rope import rotary
from cutaway.model import heads, label_heads
from cutaway.model.backbone import Backbone
from cutaway.model.family import Family
from cutaway.model.heads import Output
from cutaway.model.label_heads import Classifier
from cutaway.model.pretrained import PreTrainedModel


class LlamaConfig(PretrainedConfig):
    """Published fields: see `defaults`; also `rope_parameters`, or `rope_theta` and `rope_scaling`, and `head_dim`."""

    model_type = "llama"
    defaults = {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu",
        "max_position_embeddings": 2048, "initializer_range": 0.02, "rms_norm_eps": 1e-6, "use_cache": True,
        "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "attention_bias": False,
        "attention_dropout": 0.0, "mlp_bias": False,
    }  # fmt: skip


def to_architecture(config: LlamaConfig) -> Architecture:
    """The published config -> Architecture."""
    hidden, n_heads = config.integer("hidden_size", 1, 65_536), config.integer("num_attention_heads", 1, 1024)
    n_kv_heads = n_heads if config.num_key_value_heads is None else config.integer("num_key_value_heads", 1, n_heads)
    if n_heads % n_kv_heads:
        raise ConfigError(f"num_key_value_heads is {n_kv_heads}, which does not divide num_attention_heads, {n_heads}.")
    given = getattr(config, "head_dim", None) is not None
    size = config.integer("head_dim", 1, 4096) if given else config.divided("hidden_size", "num_attention_heads")
    attention_bias, mlp_bias = config.flag("attention_bias"), config.flag("mlp_bias")
    return Architecture(
        Stack(
            n_layers=config.integer("num_hidden_layers", 1, 1000),
            hidden_size=hidden,
            embedding=Embedding(vocab_size=config.integer("vocab_size", 1, 10_000_000), pad_id=config.pad_token_id),
            attention=Attention(
                n_heads,
                n_kv_heads,
                size,
                size**-0.5,
                bias=attention_bias,
                out_bias=attention_bias,
                dropout=config.number("attention_dropout", 0.0, 1.0),
            ),
            feed_forward=FeedForward(
                config.integer("intermediate_size", 1, 1_000_000),
                ACTIVATIONS[config.choice("hidden_act", ACTIVATIONS)],
                gated=True,
                bias=mlp_bias,
            ),
            norm=Norm("rms", config.number("rms_norm_eps", 0.0, 1.0)),
            norm_place="pre",
            final_norm=True,
            causal=True,
            positions=rotary(config, size),
        ),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


WEIGHTS = {
    "embed.tokens": "embed_tokens",
    "blocks.{i}.attn_norm": "layers.{i}.input_layernorm",
    "blocks.{i}.attn.q": "layers.{i}.self_attn.q_proj",
    "blocks.{i}.attn.k": "layers.{i}.self_attn.k_proj",
    "blocks.{i}.attn.v": "layers.{i}.self_attn.v_proj",
    "blocks.{i}.attn.o": "layers.{i}.self_attn.o_proj",
    "blocks.{i}.mlp_norm": "layers.{i}.post_attention_layernorm",
    "blocks.{i}.mlp.gate": "layers.{i}.mlp.gate_proj",
    "blocks.{i}.mlp.up": "layers.{i}.mlp.up_proj",
    "blocks.{i}.mlp.down": "layers.{i}.mlp.down_proj",
    "final_norm": "norm",
}
FAMILY = Family(to_architecture, WEIGHTS, "model")
_LABEL = Classifier("score", pick="last", drops="none", bias=False)
_TOKEN = Classifier("score", dropout=("classifier_dropout", "hidden_dropout"))
_SPAN = Classifier("qa_outputs", drops="none")


class LlamaPreTrainedModel(PreTrainedModel, config=LlamaConfig, prefix="model"):
    """Base for a user's own models around a `LlamaModel` called `model`."""


class LlamaModel(Backbone, family=FAMILY, config=LlamaConfig, prefix="model"):
    """The base model: hidden states."""


class LlamaForCausalLM(heads.CausalLM, backbone=LlamaModel, head=Output("lm_head")):
    """Which token comes next."""


class LlamaForSequenceClassification(label_heads.SequenceClassification, backbone=LlamaModel, head=_LABEL):
    """A label for a text."""


class LlamaForTokenClassification(label_heads.TokenClassification, backbone=LlamaModel, head=_TOKEN):
    """A label for each token."""


class LlamaForQuestionAnswering(
    label_heads.QuestionAnswering, backbone=LlamaModel, head=_SPAN, prefix="transformer", published="transformer"
):
    """Where the answer stands."""
