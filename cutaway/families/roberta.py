"""RoBERTa (Liu et al., 2019): BERT's encoder, positions that skip padding, heads of its own."""

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


class RobertaConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "roberta"
    defaults = {**DEFAULTS, "vocab_size": 50265, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def to_architecture(config: RobertaConfig) -> Architecture:
    """The published config -> Architecture; the first position used is pad_token_id + 1."""
    offset = config.integer("pad_token_id", 0, 10_000_000) + 1
    positions = Learned(config.integer("max_position_embeddings", offset + 1, 10_000_000), offset, after_padding=True)
    return Architecture(
        bert_stack(config, positions),
        pooler=not config.flag("is_decoder"),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


FAMILY = Family(to_architecture, WEIGHTS, "roberta")
_OUTPUT = Output("lm_head.decoder", bias="lm_head.bias", dense="lm_head.dense", norm="lm_head.layer_norm")


class RobertaPreTrainedModel(PreTrainedModel):
    """Base for a user's own models around a `RobertaModel` called `roberta`."""

    config_class = RobertaConfig
    base_model_prefix = "roberta"


class RobertaModel(Backbone):
    family = FAMILY
    config_class = RobertaConfig
    base_model_prefix = "roberta"


class RobertaForMaskedLM(MaskedLM):
    backbone = RobertaModel
    head = _OUTPUT


class RobertaForCausalLM(CausalLM):
    backbone = RobertaModel
    head = _OUTPUT


class RobertaForSequenceClassification(SequenceClassification):
    backbone = RobertaModel
    head = Classifier("classifier.out_proj", pick="first", dense="classifier.dense", drops="both")


class RobertaForTokenClassification(TokenClassification):
    backbone = RobertaModel
    head = Classifier()


class RobertaForQuestionAnswering(QuestionAnswering):
    backbone = RobertaModel
    head = Classifier("qa_outputs", drops="none")


class RobertaForMultipleChoice(MultipleChoice):
    backbone = RobertaModel
    head = Classifier(dropout=("hidden_dropout_prob",))
