"""BERT (Devlin et al., 2019)."""

from __future__ import annotations

from cutaway.config.architecture import Architecture, Learned
from cutaway.config.config import PretrainedConfig
from cutaway.families.bert_encoder import DEFAULTS, REFUSED, WEIGHTS, WITHOUT_EFFECT, bert_stack
from cutaway.models import label_heads, lm_heads, pretraining_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel


class BertConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "bert"
    defaults = DEFAULTS
    used = ("is_decoder",)
    without_effect = WITHOUT_EFFECT
    refused = REFUSED


def to_architecture(config: BertConfig) -> Architecture:
    """The published config -> Architecture."""
    positions = Learned(config.integer("max_position_embeddings", 1, 10_000_000))
    return Architecture(
        bert_stack(config, positions),
        pooler=True,
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
_SPAN = Classifier("qa_outputs", drops="none")
_NEXT = Classifier("cls.seq_relationship", drops="none")


class BertPreTrainedModel(PreTrainedModel, config=BertConfig, prefix="bert"):
    """Base for a user's own models around a `BertModel` called `bert`."""


class BertModel(Backbone, family=FAMILY, config=BertConfig, prefix="bert"):
    """The base model: hidden states."""


class BertForMaskedLM(lm_heads.MaskedLM, backbone=BertModel, head=_OUTPUT):
    """Which token belongs at each place."""


class BertLMHeadModel(lm_heads.CausalLM, backbone=BertModel, head=_OUTPUT):
    """Which token comes next."""


class BertForSequenceClassification(label_heads.SequenceClassification, backbone=BertModel, head=Classifier()):
    """A label for a text."""


class BertForTokenClassification(label_heads.TokenClassification, backbone=BertModel, head=Classifier()):
    """A label for each token."""


class BertForQuestionAnswering(label_heads.QuestionAnswering, backbone=BertModel, head=_SPAN):
    """Where the answer stands."""


class BertForMultipleChoice(label_heads.MultipleChoice, backbone=BertModel, head=Classifier()):
    """Which text is right."""


class BertForNextSentencePrediction(pretraining_heads.NextSentence, backbone=BertModel, head=_NEXT):
    """Whether a text follows another."""


class BertForPreTraining(pretraining_heads.TokensAndNextSentence, backbone=BertModel, head=_OUTPUT, sentence=_NEXT):
    """Masked tokens, and whether a text follows another."""
