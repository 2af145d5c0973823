"""XLM-RoBERTa (Conneau et al., 2020): RoBERTa over the vocabulary of a hundred languages."""

from __future__ import annotations

from cutaway.config.config import PretrainedConfig
from cutaway.families.roberta_encoder import CHOICE, DEFAULTS, FAMILY, LABEL, OUTPUT, REFUSED, SPAN, WITHOUT_EFFECT
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.label_heads import Classifier
from cutaway.models.pretrained import PreTrainedModel


class XLMRobertaConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "xlm-roberta"
    defaults = {**DEFAULTS, "vocab_size": 30522}
    used = ("is_decoder",)
    without_effect = WITHOUT_EFFECT
    refused = REFUSED


class XLMRobertaPreTrainedModel(PreTrainedModel, config=XLMRobertaConfig, prefix="roberta"):
    """Base for a user's own models around a `XLMRobertaModel` called `roberta`."""


class XLMRobertaModel(Backbone, family=FAMILY, config=XLMRobertaConfig, prefix="roberta"):
    """The base model: hidden states."""

    head_stands_first = True


class XLMRobertaForMaskedLM(lm_heads.MaskedLM, backbone=XLMRobertaModel, head=OUTPUT):
    """Which token belongs at each place."""


class XLMRobertaForCausalLM(lm_heads.CausalLM, backbone=XLMRobertaModel, head=OUTPUT):
    """Which token comes next."""


class XLMRobertaForSequenceClassification(label_heads.SequenceClassification, backbone=XLMRobertaModel, head=LABEL):
    """A label for a text."""


class XLMRobertaForTokenClassification(label_heads.TokenClassification, backbone=XLMRobertaModel, head=Classifier()):
    """A label for each token."""


class XLMRobertaForQuestionAnswering(label_heads.QuestionAnswering, backbone=XLMRobertaModel, head=SPAN):
    """Where the answer stands."""


class XLMRobertaForMultipleChoice(label_heads.MultipleChoice, backbone=XLMRobertaModel, head=CHOICE):
    """Which text is right."""
