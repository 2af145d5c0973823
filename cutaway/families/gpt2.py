"""GPT-2 (Radford et al., 2019)."""

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
from cutaway.models import label_heads, lm_heads, pretraining_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.weight_map import Table, split, transposed
from cutaway.outputs import BaseModelOutputWithPast


class GPT2Config(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "gpt2"
    attribute_map = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }
    defaults = {
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
        "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False, "bos_token_id": 50256,
        "eos_token_id": 50256, "use_cache": True, "summary_type": "cls_index", "summary_use_proj": True,
        "summary_activation": None, "summary_proj_to_labels": True, "summary_first_dropout": 0.1,
    }  # fmt: skip
    used = ("classifier_dropout", "hidden_dropout", "summary_last_dropout")
    without_effect = {
        "reorder_and_upcast_attn": "rounding in float16 alone",
        **dict.fromkeys(("n_ctx", "n_special", "predict_special_tokens"), "of an older version; nobody reads it"),
    }


def to_architecture(config: GPT2Config) -> Architecture:
    """The published config -> Architecture."""
    hidden, n_heads = config.integer("n_embd", 1, 65_536), config.integer("n_head", 1, 1024)
    size, n = config.divided("n_embd", "n_head"), config.integer("n_layer", 1, 1000)
    by_layer = tuple(1.0 / (i + 1) for i in range(n)) if config.flag("scale_attn_by_inverse_layer_idx") else ()
    norm = Norm("layer", config.number("layer_norm_epsilon", 0.0, 1.0))
    inner = 4 * hidden if config.n_inner is None else config.integer("n_inner", 1, 1_000_000)
    return Architecture(
        Stack(
            n_layers=n,
            hidden_size=hidden,
            embedding=Embedding(
                vocab_size=config.integer("vocab_size", 1, 10_000_000),
                positions=Learned(config.integer("n_positions", 1, 10_000_000)),
                dropout=config.number("embd_pdrop", 0.0, 1.0),
            ),
            attention=Attention(
                n_heads,
                n_heads,
                size,
                size**-0.5 if config.flag("scale_attn_weights") else 1.0,
                dropout=config.number("attn_pdrop", 0.0, 1.0),
            ),
            feed_forward=FeedForward(inner, ACTIVATIONS[config.choice("activation_function", ACTIVATIONS)]),
            norm=norm,
            norm_place="pre",
            final_norm=True,
            causal=True,
            cross=config.flag("add_cross_attention"),
            dropout=config.number("resid_pdrop", 0.0, 1.0),
            layer_scales=by_layer,
        ),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


WEIGHTS: Table = {
    "embed.tokens": "wte",
    "embed.positions": "wpe",
    "blocks.{i}.attn_norm": "h.{i}.ln_1",
    "blocks.{i}.attn.q": split("h.{i}.attn.c_attn", 0, 3, transpose=True),
    "blocks.{i}.attn.k": split("h.{i}.attn.c_attn", 1, 3, transpose=True),
    "blocks.{i}.attn.v": split("h.{i}.attn.c_attn", 2, 3, transpose=True),
    "blocks.{i}.attn.o": transposed("h.{i}.attn.c_proj"),
    "blocks.{i}.mlp_norm": "h.{i}.ln_2",
    "blocks.{i}.cross.k": split("h.{i}.crossattention.c_attn", 0, 2, transpose=True),
    "blocks.{i}.cross.v": split("h.{i}.crossattention.c_attn", 1, 2, transpose=True),
    "blocks.{i}.cross.q": transposed("h.{i}.crossattention.q_attn"),
    "blocks.{i}.cross.o": transposed("h.{i}.crossattention.c_proj"),
    "blocks.{i}.cross_norm": "h.{i}.ln_cross_attn",
    "blocks.{i}.mlp.up": transposed("h.{i}.mlp.c_fc"),
    "blocks.{i}.mlp.down": transposed("h.{i}.mlp.c_proj"),
    "final_norm": "ln_f",
}
FAMILY = Family(to_architecture, WEIGHTS, "transformer")
_LABEL = Classifier("score", pick="last", drops="none", bias=False)
_TOKEN = Classifier(dropout=("classifier_dropout", "hidden_dropout"), usual=0.1)
_SPAN = Classifier("qa_outputs", drops="none")


class GPT2PreTrainedModel(PreTrainedModel, config=GPT2Config, prefix="transformer"):
    """Base for a user's own models around a `GPT2Model` called `transformer`."""


class GPT2Model(Backbone[BaseModelOutputWithPast], family=FAMILY, config=GPT2Config, prefix="transformer"):
    """The base model: hidden states."""


class GPT2LMHeadModel(lm_heads.CausalLM, backbone=GPT2Model, head=Output("lm_head")):
    """Which token comes next."""


class GPT2ForSequenceClassification(label_heads.SequenceClassification, backbone=GPT2Model, head=_LABEL):
    """A label for a text."""


class GPT2ForTokenClassification(label_heads.TokenClassification, backbone=GPT2Model, head=_TOKEN):
    """A label for each token."""


class GPT2ForQuestionAnswering(label_heads.QuestionAnswering, backbone=GPT2Model, head=_SPAN):
    """Where the answer stands."""


class GPT2DoubleHeadsModel(pretraining_heads.DoubleHeads, backbone=GPT2Model, head=Output("lm_head")):
    """Which token comes next, and which of several texts is right."""
