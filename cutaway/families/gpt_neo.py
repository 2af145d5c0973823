"""GPT-Neo (Black et al., 2021): GPT-2's decoder with scores that are not scaled, and a window in every other layer."""

from __future__ import annotations

from cutaway.checkpoint.field_checks import shown_value
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
from cutaway.errors import ConfigError
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class GPTNeoConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "gpt_neo"
    attribute_map = {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}
    defaults = {
        "vocab_size": 50257, "max_position_embeddings": 2048, "hidden_size": 2048, "num_layers": 24,
        "attention_types": None, "num_heads": 16, "intermediate_size": None, "window_size": 256,
        "activation_function": "gelu_new", "resid_dropout": 0.0, "embed_dropout": 0.0, "attention_dropout": 0.0,
        "classifier_dropout": 0.1, "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "use_cache": True,
        "bos_token_id": 50256, "eos_token_id": 50256,
    }  # fmt: skip
    derived = {
        "attention_types": lambda config: [[["global", "local"], config.num_layers // 2]],
        "attention_layers": lambda config: _kinds(config, config.num_layers),
    }
    without_effect = {
        "attention_layers": "attention_types, which stands beside it, says it",
        **dict.fromkeys(
            ("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
             "summary_first_dropout"),
            "of an older version; nobody reads it",
        ),
    }  # fmt: skip


def _kinds(config: GPTNeoConfig, n: int) -> list[str]:
    """What each of n layers sees, "global" or "local": [[["global", "local"], 12]] is twelve times these two."""
    types = config.attention_types or [[["global", "local"], n // 2]]
    try:
        kinds = [kind for names, times in types for kind in list(names) * times]
    except (TypeError, ValueError):
        kinds = []
    if len(kinds) != n or not set(map(str, kinds)) <= {"global", "local"}:
        raise ConfigError(
            f"attention_types is {shown_value(types)}; it must name global or local for each of {n} layers, as in "
            '[[["global", "local"], 12]].'
        )
    return kinds


def to_architecture(config: GPTNeoConfig) -> Architecture:
    """The published config -> Architecture."""
    hidden, n_heads = config.integer("hidden_size", 1, 65_536), config.integer("num_heads", 1, 1024)
    n, size = config.integer("num_layers", 1, 1000), config.divided("hidden_size", "num_heads")
    inner = 4 * hidden if config.intermediate_size is None else config.integer("intermediate_size", 1, 1_000_000)
    window = config.integer("window_size", 1, 100_000_000)
    return Architecture(
        Stack(
            n_layers=n,
            hidden_size=hidden,
            embedding=Embedding(
                vocab_size=config.integer("vocab_size", 1, 10_000_000),
                positions=Learned(config.integer("max_position_embeddings", 1, 10_000_000)),
                dropout=config.number("embed_dropout", 0.0, 1.0),
            ),
            attention=Attention(
                n_heads, n_heads, size, 1.0, bias=False, dropout=config.number("attention_dropout", 0.0, 1.0)
            ),
            feed_forward=FeedForward(inner, ACTIVATIONS[config.choice("activation_function", ACTIVATIONS)]),
            norm=Norm("layer", config.number("layer_norm_epsilon", 0.0, 1.0)),
            norm_place="pre",
            final_norm=True,
            causal=True,
            dropout=config.number("resid_dropout", 0.0, 1.0),
            windows=tuple(window if kind == "local" else None for kind in _kinds(config, n)),
        ),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


WEIGHTS = {
    "embed.tokens": "wte",
    "embed.positions": "wpe",
    "blocks.{i}.attn_norm": "h.{i}.ln_1",
    **{f"blocks.{{i}}.attn.{part}": f"h.{{i}}.attn.attention.{part}_proj" for part in "qkv"},
    "blocks.{i}.attn.o": "h.{i}.attn.attention.out_proj",
    "blocks.{i}.mlp_norm": "h.{i}.ln_2",
    "blocks.{i}.mlp.up": "h.{i}.mlp.c_fc",
    "blocks.{i}.mlp.down": "h.{i}.mlp.c_proj",
    "final_norm": "ln_f",
}
FAMILY = Family(to_architecture, WEIGHTS, "transformer")
_LABEL = Classifier("score", pick="last", drops="none", bias=False)
_TOKEN = Classifier(dropout=("classifier_dropout",))
_SPAN = Classifier("qa_outputs", drops="none")


class GPTNeoPreTrainedModel(PreTrainedModel, config=GPTNeoConfig, prefix="transformer"):
    """Base for a user's own models around a `GPTNeoModel` called `transformer`."""


class GPTNeoModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=GPTNeoConfig, prefix="transformer"):
    """The base model: hidden states."""


class GPTNeoForCausalLM(lm_heads.CausalLM, backbone=GPTNeoModel, head=Output("lm_head")):
    """Which token comes next."""


class GPTNeoForSequenceClassification(label_heads.SequenceClassification, backbone=GPTNeoModel, head=_LABEL):
    """A label for a text."""


class GPTNeoForTokenClassification(label_heads.TokenClassification, backbone=GPTNeoModel, head=_TOKEN):
    """A label for each token."""


class GPTNeoForQuestionAnswering(label_heads.QuestionAnswering, backbone=GPTNeoModel, head=_SPAN):
    """Where the answer stands."""
