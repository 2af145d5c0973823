"""DeBERTa v2 and v3 (He et al., 2021 and 2023): BERT's encoder with scores that depend on distances and words."""

from __future__ import annotations

from dataclasses import replace

from cutaway.config.architecture import ACTIVATIONS, Architecture, Convolution, Distances, Learned
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import only
from cutaway.errors import ConfigError
from cutaway.families.bert_encoder import DEFAULTS, WEIGHTS, WITHOUT_EFFECT, bert_stack
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import ByFlag, Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutput


class DebertaV2Config(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "deberta-v2"
    defaults = {
        **DEFAULTS, "vocab_size": 128100, "hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 24,
        "intermediate_size": 6144, "type_vocab_size": 0, "layer_norm_eps": 1e-7, "relative_attention": False,
        "max_relative_positions": -1, "position_biased_input": True, "pos_att_type": None, "pooler_dropout": 0.0,
        "pooler_hidden_act": "gelu", "legacy": True, "position_buckets": -1, "norm_rel_ebd": "none",
        "share_att_key": False, "conv_kernel_size": 0, "conv_groups": 1, "conv_act": "tanh", "cls_dropout": None,
    }  # fmt: skip
    used = ("attention_head_size", "embedding_size", "pooler_hidden_size")
    without_effect = {
        **WITHOUT_EFFECT,
        **dict.fromkeys(("is_decoder", "classifier_dropout", "use_cache"), "not a field of DeBERTa"),
        **dict.fromkeys(("max_relative_positions_ext", "abs_pos_emb", "padding_idx"), "nobody reads it"),
    }
    refused = {"position_embedding_type": only("absolute"), "add_cross_attention": only(False)}


def _kinds(config: DebertaV2Config) -> list[str]:
    """Which scores of distances there are, from "p2c|c2p" or a list of them."""
    value = config.pos_att_type or []
    kinds = value.lower().replace(" ", "").split("|") if isinstance(value, str) else value
    if not isinstance(kinds, (list, tuple)) or not set(map(str, kinds)) <= {"c2p", "p2c", "none", ""}:
        raise ConfigError(f"pos_att_type is {config.pos_att_type!r}; it must name 'c2p', 'p2c', both or none.")
    return [str(kind) for kind in kinds]


def to_architecture(config: DebertaV2Config) -> Architecture:
    """The published config -> Architecture."""
    positions = config.integer("max_position_embeddings", 2, 10_000_000)
    stack = bert_stack(config, Learned(positions))
    kinds, attention = _kinds(config), stack.attention
    only_size = {"embedding_size": stack.hidden_size, "pooler_hidden_size": stack.hidden_size}
    for name, size in {**only_size, "attention_head_size": attention.head_size}.items():
        if getattr(config, name, None) is not None:
            config.integer(name, size, size)
    parts = 1 + ("c2p" in kinds) + ("p2c" in kinds)
    attention = replace(attention, scale=(attention.head_size * parts) ** -0.5)
    norm_table = config.choice("norm_rel_ebd", ("none", "layer_norm")) == "layer_norm"
    if config.flag("relative_attention") and parts > 1:
        farthest = config.integer("max_relative_positions", -1, 10_000_000)
        farthest = positions if farthest < 1 else farthest
        buckets = config.integer("position_buckets", -1, 100_000)
        if 0 < buckets < 4 or buckets > 2 * farthest - 4:
            raise ConfigError(f"position_buckets is {buckets}; it must be 0, or from 4 to 2 * {farthest} - 4.")
        distances = Distances(
            buckets if buckets > 0 else farthest, farthest if buckets > 0 else 0, "c2p" in kinds, "p2c" in kinds,
            shared=config.flag("share_att_key"), norm=stack.norm if norm_table else None, dropout=stack.dropout,
        )  # fmt: skip
        attention = replace(attention, distances=distances)
    learned = stack.embedding.positions if config.flag("position_biased_input") else None
    embedding = replace(stack.embedding, positions=learned, takes_types=True)
    return Architecture(
        replace(stack, embedding=embedding, attention=attention, causal=False, convolution=_convolution(config)),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings") or not config.flag("legacy"),
    )


def _convolution(config: DebertaV2Config) -> Convolution | None:
    size, groups = config.integer("conv_kernel_size", 0, 1000), config.integer("conv_groups", 1, 65_536)
    if size == 0:
        return None
    if size % 2 == 0 or config.hidden_size % groups:
        raise ConfigError(f"conv_kernel_size is {size} and conv_groups {groups}; give an odd size, and a divisor.")
    activation = ACTIVATIONS[config.choice("conv_act", ACTIVATIONS)]
    return Convolution(size, groups, activation, config.number("hidden_dropout_prob", 0.0, 1.0))


_INSIDE = "encoder.layer.{i}.attention.self"
_TABLE = {
    **{ours: theirs for ours, theirs in WEIGHTS.items() if ours != "pooler.dense"},
    **{f"blocks.{{i}}.attn.{a}": f"{_INSIDE}.{b}_proj" for a, b in (("q", "query"), ("k", "key"), ("v", "value"))},
    "blocks.{i}.attn.distances.k": f"{_INSIDE}.pos_key_proj",
    "blocks.{i}.attn.distances.q": f"{_INSIDE}.pos_query_proj",
    "relative": "encoder.rel_embeddings",
    "relative_norm": "encoder.LayerNorm",
    "blocks.0.conv.conv": "encoder.conv.conv",
    "blocks.0.conv.norm": "encoder.conv.LayerNorm",
}
FAMILY = Family(to_architecture, _TABLE, "deberta")
_MASK, _NEW = "cls.predictions", "lm_predictions.lm_head"
_OUTPUT = Output(
    f"{_MASK}.decoder", f"{_MASK}.bias", f"{_MASK}.transform.dense", f"{_MASK}.transform.LayerNorm", "hidden_act"
)
_NEW_OUTPUT = Output(f"{_NEW}.decoder", f"{_NEW}.bias", f"{_NEW}.dense", f"{_NEW}.LayerNorm", "hidden_act")
_POOLED = Classifier(
    pick="first", dense="pooler.dense", dropout=("cls_dropout", "hidden_dropout_prob"), drops="after",
    activation_field="pooler_hidden_act", dense_dropout=("pooler_dropout",), shares=True,
)  # fmt: skip
_SPAN = Classifier("qa_outputs", drops="none")


class DebertaV2PreTrainedModel(PreTrainedModel, config=DebertaV2Config, prefix="deberta"):
    """Base for a user's own models around a `DebertaV2Model` called `deberta`."""


class DebertaV2Model(Backbone[BaseModelOutput], family=FAMILY, config=DebertaV2Config, prefix="deberta"):
    """The base model: hidden states."""


class DebertaV2ForMaskedLM(lm_heads.MaskedLM, backbone=DebertaV2Model, head=ByFlag("legacy", _OUTPUT, _NEW_OUTPUT)):
    """Which token belongs at each place."""


class DebertaV2ForSequenceClassification(label_heads.SequenceClassification, backbone=DebertaV2Model, head=_POOLED):
    """A label for a text."""


class DebertaV2ForTokenClassification(
    label_heads.TokenClassification, backbone=DebertaV2Model, head=Classifier(dropout=("hidden_dropout_prob",))
):
    """A label for each token."""


class DebertaV2ForQuestionAnswering(label_heads.QuestionAnswering, backbone=DebertaV2Model, head=_SPAN):
    """Where the answer stands."""


class DebertaV2ForMultipleChoice(label_heads.MultipleChoice, backbone=DebertaV2Model, head=_POOLED):
    """Which text is right."""
