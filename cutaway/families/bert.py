"""BERT (Devlin et al., 2019)."""

from __future__ import annotations

from cutaway.architecture import Architecture, Learned
from cutaway.config import PretrainedConfig
from cutaway.families.bert_encoder import DEFAULTS, WEIGHTS, bert_stack
from cutaway.model.backbone import Backbone
from cutaway.model.family import Family
from cutaway.model.heads import (
    CausalLM,
    Classifier,
    MaskedLM,
    MultipleChoice,
    Output,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
)
from cutaway.model.pretrained import PreTrainedModel


class BertConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "bert"
    defaults = DEFAULTS


def to_architecture(config: BertConfig) -> Architecture:
    """The published config -> Architecture."""
    positions = Learned(config.integer("max_position_embeddings", 1, 10_000_000))
    return Architecture(
        bert_stack(config, positions),
        pooler=not config.flag("is_decoder"),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


FAMILY = Family(to_architecture, WEIGHTS, "bert")
_OUTPUT = Output(
    "cls.predictions.decoder",
    bias="cls.predictions.bias",
    dense="cls.predictions.transform.dense",
    norm="cls.predictions.transform.LayerNorm",
    activation="hidden_act",
)


class BertPreTrainedModel(PreTrainedModel):
    """Base for a user's own models around a `BertModel` called `bert`."""

    config_class = BertConfig
    base_model_prefix = "bert"


class BertModel(Backbone):
    family = FAMILY
    config_class = BertConfig
    base_model_prefix = "bert"


class BertForMaskedLM(MaskedLM):
    backbone = BertModel
    head = _OUTPUT


class BertLMHeadModel(CausalLM):
    backbone = BertModel
    head = _OUTPUT


class BertForSequenceClassification(SequenceClassification):
    backbone = BertModel
    head = Classifier()


class BertForTokenClassification(TokenClassification):
    backbone = BertModel
    head = Classifier()


class BertForQuestionAnswering(QuestionAnswering):
    backbone = BertModel
    head = Classifier("qa_outputs", drops="none")


class BertForMultipleChoice(MultipleChoice):
    backbone = BertModel
    head = Classifier()
