"""ModernBERT (Warner et al., 2024): rotary positions, windows in two of three layers, gated feed-forward, no biases."""

from __future__ import annotations

from cutaway.config.architecture import ACTIVATIONS, Architecture, Attention, Embedding, FeedForward, Norm, Stack
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import only
from cutaway.families.layer_types import layer_types
from cutaway.families.rope import rotary
from cutaway.families.rope_table import derived_ropes
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.weight_map import Table, split
from cutaway.outputs import BaseModelOutput


class ModernBertConfig(PretrainedConfig):
    """Published fields: see `defaults`; also `rope_parameters` with an entry for each kind of layer."""

    model_type = "modernbert"
    defaults = {
        "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22,
        "num_attention_heads": 12, "hidden_activation": "gelu", "max_position_embeddings": 8192,
        "initializer_range": 0.02, "norm_eps": 1e-5, "norm_bias": False, "pad_token_id": 50283, "eos_token_id": 50282,
        "bos_token_id": 50281, "attention_bias": False, "attention_dropout": 0.0, "layer_types": None,
        "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0,
        "local_attention": 128, "embedding_dropout": 0.0, "mlp_bias": False, "mlp_dropout": 0.0, "decoder_bias": True,
        "classifier_pooling": "cls", "classifier_dropout": 0.0, "classifier_bias": False,
        "classifier_activation": "gelu", "sparse_prediction": False,
    }  # fmt: skip
    derived = {
        **derived_ropes({
            "sliding_attention": ("local_rope_theta", 10_000.0), "full_attention": ("global_rope_theta", 160_000.0)
        }),
        "layer_types": lambda config: _kinds(config), "sliding_window": lambda config: config.local_attention // 2,
    }  # fmt: skip
    used = ("rope_parameters",)
    without_effect = {
        **dict.fromkeys(("reference_compile", "deterministic_flash_attn", "repad_logits_with_grad"), "speed elsewhere"),
        "layer_norm_eps": "norm_eps says it",
        "sparse_pred_ignore_index": "only beside sparse_prediction",
        "initializer_cutoff_factor": "fresh weights are drawn without a cut",
    }
    refused = {"decoder_bias": only(True), "sparse_prediction": only(False)}


def _kinds(config: PretrainedConfig) -> list[str]:
    """Whether each layer sees the whole text or a window."""
    every = config.integer("global_attn_every_n_layers", 1, 1000)
    return layer_types(config, lambda i: i % every != 0)


def to_architecture(config: ModernBertConfig) -> Architecture:
    """The published config -> Architecture. `local_attention` counts the tokens on both sides."""
    n_heads, size = config.integer("num_attention_heads", 1, 1024), config.divided("hidden_size", "num_attention_heads")
    kinds, theta = _kinds(config), config.number
    rotaries = {
        "full_attention": rotary(config, size, "full_attention", theta("global_rope_theta", 1.0, 1e12)),
        "sliding_attention": rotary(config, size, "sliding_attention", theta("local_rope_theta", 1.0, 1e12)),
    }
    window = config.integer("local_attention", 1, 100_000_000) // 2 + 1
    norm, bias = Norm("layer", config.number("norm_eps", 0.0, 1.0), bias=config.flag("norm_bias")), "attention_bias"
    dropout = config.number("attention_dropout", 0.0, 1.0)
    return Architecture(
        Stack(
            n_layers=len(kinds),
            hidden_size=config.integer("hidden_size", 1, 65_536),
            embedding=Embedding(
                vocab_size=config.integer("vocab_size", 1, 10_000_000),
                norm=norm,
                pad_id=config.pad_token_id,
                dropout=config.number("embedding_dropout", 0.0, 1.0),
            ),
            attention=Attention(
                n_heads, n_heads, size, size**-0.5, config.flag(bias), config.flag(bias), dropout, out_dropout=dropout
            ),
            feed_forward=FeedForward(
                config.integer("intermediate_size", 1, 1_000_000),
                ACTIVATIONS[config.choice("hidden_activation", ACTIVATIONS)],
                gated=True,
                bias=config.flag("mlp_bias"),
                dropout=config.number("mlp_dropout", 0.0, 1.0),
            ),
            norm=norm,
            norm_place="pre",
            final_norm=True,
            positions=rotaries["full_attention"],
            windows=tuple(window if kind == "sliding_attention" else None for kind in kinds),
            layer_positions=tuple(rotaries[kind] for kind in kinds),
            first_norm=False,
        ),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


WEIGHTS: Table = {
    "embed.tokens": "embeddings.tok_embeddings",
    "embed.norm": "embeddings.norm",
    "blocks.{i}.attn_norm": "layers.{i}.attn_norm",
    **{f"blocks.{{i}}.attn.{part}": split("layers.{i}.attn.Wqkv", n, 3) for n, part in enumerate("qkv")},
    "blocks.{i}.attn.o": "layers.{i}.attn.Wo",
    "blocks.{i}.mlp_norm": "layers.{i}.mlp_norm",
    **{f"blocks.{{i}}.mlp.{part}": split("layers.{i}.mlp.Wi", n, 2) for n, part in enumerate(("gate", "up"))},
    "blocks.{i}.mlp.down": "layers.{i}.mlp.Wo",
    "final_norm": "final_norm",
}
FAMILY = Family(to_architecture, WEIGHTS, "model")
_OUTPUT = Output("decoder", "", "head.dense", "head.norm", "classifier_activation", "classifier_bias")
_LABEL = Classifier(
    "classifier", "first", "head.dense", norm="head.norm", dropout=("classifier_dropout",), drops="after",
    activation_field="classifier_activation", pick_field="classifier_pooling", dense_bias="classifier_bias",
)  # fmt: skip


class ModernBertPreTrainedModel(PreTrainedModel, config=ModernBertConfig, prefix="model"):
    """Base for a user's own models around a `ModernBertModel` called `model`."""


class ModernBertModel(Backbone[BaseModelOutput], family=FAMILY, config=ModernBertConfig, prefix="model"):
    """The base model: hidden states."""


class ModernBertForMaskedLM(lm_heads.MaskedLM, backbone=ModernBertModel, head=_OUTPUT):
    """Which token belongs at each place."""


class ModernBertForSequenceClassification(label_heads.SequenceClassification, backbone=ModernBertModel, head=_LABEL):
    """A label for a text."""


class ModernBertForTokenClassification(label_heads.TokenClassification, backbone=ModernBertModel, head=_LABEL):
    """A label for each token."""


class ModernBertForQuestionAnswering(label_heads.QuestionAnswering, backbone=ModernBertModel, head=_LABEL):
    """Where the answer stands."""


class ModernBertForMultipleChoice(label_heads.MultipleChoice, backbone=ModernBertModel, head=_LABEL):
    """Which text is right."""
