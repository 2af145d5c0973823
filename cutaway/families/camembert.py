"""CamemBERT (Martin et al., 2020): RoBERTa for French, with a tokenizer of its own."""

from __future__ import annotations

from cutaway.config.config import PretrainedConfig
from cutaway.families.roberta_encoder import CHOICE, DEFAULTS, FAMILY, LABEL, OUTPUT, REFUSED, SPAN, WITHOUT_EFFECT
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.label_heads import Classifier
from cutaway.models.pretrained import PreTrainedModel


class CamembertConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "camembert"
    defaults = {**DEFAULTS, "vocab_size": 30522}
    used = ("is_decoder",)
    without_effect = WITHOUT_EFFECT
    refused = REFUSED


class CamembertPreTrainedModel(PreTrainedModel, config=CamembertConfig, prefix="roberta"):
    """Base for a user's own models around a `CamembertModel` called `roberta`."""


class CamembertModel(Backbone, family=FAMILY, config=CamembertConfig, prefix="roberta"):
    """The base model: hidden states."""

    head_stands_first = True


class CamembertForMaskedLM(lm_heads.MaskedLM, backbone=CamembertModel, head=OUTPUT):
    """Which token belongs at each place."""


class CamembertForCausalLM(lm_heads.CausalLM, backbone=CamembertModel, head=OUTPUT):
    """Which token comes next."""


class CamembertForSequenceClassification(label_heads.SequenceClassification, backbone=CamembertModel, head=LABEL):
    """A label for a text."""


class CamembertForTokenClassification(label_heads.TokenClassification, backbone=CamembertModel, head=Classifier()):
    """A label for each token."""


class CamembertForQuestionAnswering(label_heads.QuestionAnswering, backbone=CamembertModel, head=SPAN):
    """Where the answer stands."""


class CamembertForMultipleChoice(label_heads.MultipleChoice, backbone=CamembertModel, head=CHOICE):
    """Which text is right."""
