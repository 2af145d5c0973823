"""GPT-J (Wang and Komatsuzaki, 2021): parallel layers that read one norm, rotary positions by neighbours."""

from __future__ import annotations

from cutaway.config.architecture import (
    ACTIVATIONS,
    Architecture,
    Attention,
    Embedding,
    FeedForward,
    Norm,
    Rotary,
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


class GPTJConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "gptj"
    attribute_map = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }
    defaults = {
        "vocab_size": 50400, "n_positions": 2048, "n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64,
        "n_inner": None, "activation_function": "gelu_new", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "use_cache": True, "bos_token_id": 50256,
        "eos_token_id": 50256, "tie_word_embeddings": False,
    }  # fmt: skip
    without_effect = dict.fromkeys(
        ("rotary", "scale_attn_weights", "n_ctx", "summary_type", "summary_use_proj", "summary_activation",
         "summary_proj_to_labels", "summary_first_dropout"),
        "of an older version; nobody reads it",
    )  # fmt: skip


def to_architecture(config: GPTJConfig) -> Architecture:
    """The published config -> Architecture."""
    hidden, n_heads = config.integer("n_embd", 1, 65_536), config.integer("n_head", 1, 1024)
    size, dropout = config.divided("n_embd", "n_head"), config.number("resid_pdrop", 0.0, 1.0)
    inner = 4 * hidden if config.n_inner is None else config.integer("n_inner", 1, 1_000_000)
    turned = config.integer("rotary_dim", 2, size)
    if turned % 2:
        raise ConfigError(f"rotary_dim is {turned}; it must be even: numbers of a head are turned in pairs.")
    return Architecture(
        Stack(
            n_layers=config.integer("n_layer", 1, 1000),
            hidden_size=hidden,
            embedding=Embedding(
                vocab_size=config.integer("vocab_size", 1, 10_000_000), dropout=config.number("embd_pdrop", 0.0, 1.0)
            ),
            attention=Attention(
                n_heads,
                n_heads,
                size,
                size**-0.5,
                bias=False,
                out_bias=False,
                dropout=config.number("attn_pdrop", 0.0, 1.0),
            ),
            feed_forward=FeedForward(inner, ACTIVATIONS[config.choice("activation_function", ACTIVATIONS)]),
            norm=Norm("layer", config.number("layer_norm_epsilon", 0.0, 1.0)),
            norm_place="shared",
            final_norm=True,
            causal=True,
            positions=Rotary(10_000.0, turned, config.integer("n_positions", 1, 100_000_000), interleaved=True),
            dropout=dropout,
        ),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


WEIGHTS = {
    "embed.tokens": "wte",
    "blocks.{i}.attn_norm": "h.{i}.ln_1",
    "blocks.{i}.attn.q": "h.{i}.attn.q_proj",
    "blocks.{i}.attn.k": "h.{i}.attn.k_proj",
    "blocks.{i}.attn.v": "h.{i}.attn.v_proj",
    "blocks.{i}.attn.o": "h.{i}.attn.out_proj",
    "blocks.{i}.mlp.up": "h.{i}.mlp.fc_in",
    "blocks.{i}.mlp.down": "h.{i}.mlp.fc_out",
    "final_norm": "ln_f",
}
FAMILY = Family(to_architecture, WEIGHTS, "transformer")
_LABEL = Classifier("score", pick="last", drops="none", bias=False)
_SPAN = Classifier("qa_outputs", drops="none")


class GPTJPreTrainedModel(PreTrainedModel, config=GPTJConfig, prefix="transformer"):
    """Base for a user's own models around a `GPTJModel` called `transformer`."""


class GPTJModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=GPTJConfig, prefix="transformer"):
    """The base model: hidden states."""


class GPTJForCausalLM(lm_heads.CausalLM, backbone=GPTJModel, head=Output("lm_head", "")):
    """Which token comes next."""


class GPTJForSequenceClassification(label_heads.SequenceClassification, backbone=GPTJModel, head=_LABEL):
    """A label for a text."""


class GPTJForQuestionAnswering(label_heads.QuestionAnswering, backbone=GPTJModel, head=_SPAN):
    """Where the answer stands."""
