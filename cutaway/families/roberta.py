"""RoBERTa (Liu et al., 2019): BERT's encoder, positions that skip padding, heads of its own."""

from __future__ import annotations

from cutaway.architecture import Architecture, Learned
from cutaway.config import PretrainedConfig
from cutaway.families.bert_encoder import DEFAULTS, WEIGHTS, bert_stack
from cutaway.model import heads, label_heads
from cutaway.model.backbone import Backbone
from cutaway.model.family import Family
from cutaway.model.heads import Output
from cutaway.model.label_heads import Classifier
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
        pooler=True,
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


FAMILY = Family(to_architecture, WEIGHTS, "roberta")
_OUTPUT = Output("lm_head.decoder", bias="lm_head.bias", dense="lm_head.dense", norm="lm_head.layer_norm")
_LABEL = Classifier("classifier.out_proj", pick="first", dense="classifier.dense", drops="both")
_SPAN = Classifier("qa_outputs", drops="none")
_CHOICE = Classifier(dropout=("hidden_dropout_prob",))


class RobertaPreTrainedModel(PreTrainedModel, config=RobertaConfig, prefix="roberta"):
    """Base for a user's own models around a `RobertaModel` called `roberta`."""


class RobertaModel(Backbone, family=FAMILY, config=RobertaConfig, prefix="roberta"):
    """The base model: hidden states."""


class RobertaForMaskedLM(heads.MaskedLM, backbone=RobertaModel, head=_OUTPUT):
    """Which token belongs at each place."""


class RobertaForCausalLM(heads.CausalLM, backbone=RobertaModel, head=_OUTPUT):
    """Which token comes next."""


class RobertaForSequenceClassification(label_heads.SequenceClassification, backbone=RobertaModel, head=_LABEL):
    """A label for a text."""


class RobertaForTokenClassification(label_heads.TokenClassification, backbone=RobertaModel, head=Classifier()):
    """A label for each token."""


class RobertaForQuestionAnswering(label_heads.QuestionAnswering, backbone=RobertaModel, head=_SPAN):
    """Where the answer stands."""


class RobertaForMultipleChoice(label_heads.MultipleChoice, backbone=RobertaModel, head=_CHOICE):
    """Which text is right."""
