"""DistilBERT (Sanh et al., 2019): BERT without token types and pooler."""

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
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutput


class DistilBertConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "distilbert"
    attribute_map = {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
        "intermediate_size": "hidden_dim",
    }
    defaults = {
        "vocab_size": 30522, "max_position_embeddings": 512, "sinusoidal_pos_embds": False, "n_layers": 6,
        "n_heads": 12, "dim": 768, "hidden_dim": 3072, "dropout": 0.1, "attention_dropout": 0.1,
        "activation": "gelu", "initializer_range": 0.02, "qa_dropout": 0.1, "seq_classif_dropout": 0.2,
        "pad_token_id": 0,
    }  # fmt: skip
    without_effect = {
        "sinusoidal_pos_embds": "the table is stored; a fresh model draws it like every weight",
        "tie_weights_": "tie_word_embeddings says it",
    }


def to_architecture(config: DistilBertConfig) -> Architecture:
    """The published config -> Architecture. Sinusoidal positions are stored as a table, so they need no formula."""
    hidden, n_heads = config.integer("dim", 1, 65_536), config.integer("n_heads", 1, 1024)
    size = config.divided("dim", "n_heads")
    norm = Norm("layer", 1e-12)
    return Architecture(
        Stack(
            n_layers=config.integer("n_layers", 1, 1000),
            hidden_size=hidden,
            embedding=Embedding(
                vocab_size=config.integer("vocab_size", 1, 10_000_000),
                positions=Learned(config.integer("max_position_embeddings", 1, 10_000_000)),
                norm=norm,
                pad_id=config.pad_token_id,
                dropout=config.number("dropout", 0.0, 1.0),
            ),
            attention=Attention(
                n_heads, n_heads, size, size**-0.5, dropout=config.number("attention_dropout", 0.0, 1.0)
            ),
            feed_forward=FeedForward(
                config.integer("hidden_dim", 1, 1_000_000), ACTIVATIONS[config.choice("activation", ACTIVATIONS)]
            ),
            norm=norm,
            norm_place="post",
            dropout=config.number("dropout", 0.0, 1.0),
        ),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


WEIGHTS = {
    "embed.tokens": "embeddings.word_embeddings",
    "embed.positions": "embeddings.position_embeddings",
    "embed.norm": "embeddings.LayerNorm",
    "blocks.{i}.attn.q": "transformer.layer.{i}.attention.q_lin",
    "blocks.{i}.attn.k": "transformer.layer.{i}.attention.k_lin",
    "blocks.{i}.attn.v": "transformer.layer.{i}.attention.v_lin",
    "blocks.{i}.attn.o": "transformer.layer.{i}.attention.out_lin",
    "blocks.{i}.attn_norm": "transformer.layer.{i}.sa_layer_norm",
    "blocks.{i}.mlp.up": "transformer.layer.{i}.ffn.lin1",
    "blocks.{i}.mlp.down": "transformer.layer.{i}.ffn.lin2",
    "blocks.{i}.mlp_norm": "transformer.layer.{i}.output_layer_norm",
}
FAMILY = Family(to_architecture, WEIGHTS, "distilbert")
_OUTPUT = Output("vocab_projector", bias="", dense="vocab_transform", norm="vocab_layer_norm", activation="activation")
_LABEL = Classifier("classifier", "first", "pre_classifier", "relu", dropout=("seq_classif_dropout",), drops="after")
_TOKEN = Classifier(dropout=("dropout",))
_SPAN = Classifier("qa_outputs", dropout=("qa_dropout",))


class DistilBertPreTrainedModel(PreTrainedModel, config=DistilBertConfig, prefix="distilbert"):
    """Base for a user's own models around a `DistilBertModel` called `distilbert`."""


class DistilBertModel(Backbone[BaseModelOutput], family=FAMILY, config=DistilBertConfig, prefix="distilbert"):
    """The base model: hidden states."""


class DistilBertForMaskedLM(lm_heads.MaskedLM, backbone=DistilBertModel, head=_OUTPUT):
    """Which token belongs at each place."""


class DistilBertForSequenceClassification(label_heads.SequenceClassification, backbone=DistilBertModel, head=_LABEL):
    """A label for a text."""


class DistilBertForTokenClassification(label_heads.TokenClassification, backbone=DistilBertModel, head=_TOKEN):
    """A label for each token."""


class DistilBertForQuestionAnswering(label_heads.QuestionAnswering, backbone=DistilBertModel, head=_SPAN):
    """Where the answer stands."""


class DistilBertForMultipleChoice(label_heads.MultipleChoice, backbone=DistilBertModel, head=_LABEL):
    """Which text is right."""
