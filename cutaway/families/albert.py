"""ALBERT (Lan et al., 2020): BERT's encoder whose layers share their weights, over narrower tables."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import Architecture, Learned
from cutaway.config.config import PretrainedConfig
from cutaway.families.bert_encoder import DEFAULTS, ENCODERS_ONLY, WEIGHTS, WITHOUT_EFFECT, bert_stack
from cutaway.models import label_heads, lm_heads, pretraining_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.nn.weight_map import Table


class AlbertConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "albert"
    defaults = {
        **DEFAULTS, "vocab_size": 30000, "embedding_size": 128, "hidden_size": 4096, "num_hidden_groups": 1,
        "num_attention_heads": 64, "intermediate_size": 16384, "inner_group_num": 1, "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout_prob": 0.1,
        "bos_token_id": 2, "eos_token_id": 3,
    }  # fmt: skip
    without_effect = {
        **WITHOUT_EFFECT,
        **dict.fromkeys(("is_decoder", "classifier_dropout", "use_cache"), "not a field of ALBERT"),
        **dict.fromkeys(
            ("net_structure_type", "num_memory_blocks", "gap_size", "down_scale_factor", "layers_to_keep"),
            "of an older version; nobody reads it",
        ),
    }
    refused = ENCODERS_ONLY


def to_architecture(config: AlbertConfig) -> Architecture:
    """The published config -> Architecture; layers are dealt out to `num_hidden_groups` in order, and each runs all
    blocks of its group.
    """
    inner = config.integer("inner_group_num", 1, 1000)
    positions = Learned(config.integer("max_position_embeddings", 1, 10_000_000))
    stack = bert_stack(config, positions, config.integer("embedding_size", 1, 65_536))
    groups = config.integer("num_hidden_groups", 1, stack.n_layers)
    group_of = (int(i / (stack.n_layers / groups)) for i in range(stack.n_layers))
    block_of = tuple(group * inner + one for group in group_of for one in range(inner))
    return Architecture(
        replace(stack, n_layers=len(block_of), causal=False, block_of=block_of, group_size=inner),
        pooler=True,
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


_INSIDE = "encoder.albert_layer_groups.{i//n}.albert_layers.{i%n}"
_TABLE = {
    **{ours: theirs for ours, theirs in WEIGHTS.items() if ours.startswith("embed.")},
    "embed.project": "encoder.embedding_hidden_mapping_in",
    "blocks.{i}.mlp_norm": f"{_INSIDE}.full_layer_layer_norm",
    "blocks.{i}.attn.q": f"{_INSIDE}.attention.query",
    "blocks.{i}.attn.k": f"{_INSIDE}.attention.key",
    "blocks.{i}.attn.v": f"{_INSIDE}.attention.value",
    "blocks.{i}.attn.o": f"{_INSIDE}.attention.dense",
    "blocks.{i}.attn_norm": f"{_INSIDE}.attention.LayerNorm",
    "blocks.{i}.mlp.up": f"{_INSIDE}.ffn",
    "blocks.{i}.mlp.down": f"{_INSIDE}.ffn_output",
    "pooler.dense": "pooler",
}


def _table(architecture: Architecture) -> Table:
    size = architecture.stack.group_size
    return {
        ours: theirs.replace("{i//n}", f"{{i//{size}}}").replace("{i%n}", f"{{i%{size}}}")
        for ours, theirs in _TABLE.items()
    }


FAMILY = Family(to_architecture, _table, "albert")
_OUTPUT = Output(
    "predictions.decoder",
    bias="predictions.bias",
    dense="predictions.dense",
    norm="predictions.LayerNorm",
    activation="hidden_act",
)
_LABEL = Classifier(dropout=("classifier_dropout_prob", "hidden_dropout_prob"))
_SPAN = Classifier("qa_outputs", drops="none")
_ORDER = Classifier("sop_classifier.classifier", dropout=("classifier_dropout_prob",))


class AlbertPreTrainedModel(PreTrainedModel, config=AlbertConfig, prefix="albert"):
    """Base for a user's own models around an `AlbertModel` called `albert`."""


class AlbertModel(Backbone, family=FAMILY, config=AlbertConfig, prefix="albert"):
    """The base model: hidden states."""


class AlbertForMaskedLM(lm_heads.MaskedLM, backbone=AlbertModel, head=_OUTPUT):
    """Which token belongs at each place."""


class AlbertForSequenceClassification(label_heads.SequenceClassification, backbone=AlbertModel, head=_LABEL):
    """A label for a text."""


class AlbertForTokenClassification(label_heads.TokenClassification, backbone=AlbertModel, head=_LABEL):
    """A label for each token."""


class AlbertForQuestionAnswering(label_heads.QuestionAnswering, backbone=AlbertModel, head=_SPAN):
    """Where the answer stands."""


class AlbertForMultipleChoice(label_heads.MultipleChoice, backbone=AlbertModel, head=_LABEL):
    """Which text is right."""


class AlbertForPreTraining(
    pretraining_heads.TokensAndSentenceOrder, backbone=AlbertModel, head=_OUTPUT, sentence=_ORDER
):
    """Masked tokens, and which of two texts was first."""
