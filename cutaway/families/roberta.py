"""RoBERTa (Liu et al., 2019): BERT's encoder, positions that skip padding, heads of its own."""

from __future__ import annotations

from cutaway.config.config import PretrainedConfig
from cutaway.families.roberta_encoder import CHOICE, DEFAULTS, FAMILY, LABEL, OUTPUT, REFUSED, SPAN, WITHOUT_EFFECT
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.label_heads import Classifier
from cutaway.models.pretrained import PreTrainedModel


class RobertaConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "roberta"
    defaults = DEFAULTS
    used = ("is_decoder",)
    without_effect = WITHOUT_EFFECT
    refused = REFUSED


class RobertaPreTrainedModel(PreTrainedModel, config=RobertaConfig, prefix="roberta"):
    """Base for a user's own models around a `RobertaModel` called `roberta`."""


class RobertaModel(Backbone, family=FAMILY, config=RobertaConfig, prefix="roberta"):
    """The base model: hidden states."""


class RobertaForMaskedLM(lm_heads.MaskedLM, backbone=RobertaModel, head=OUTPUT):
    """Which token belongs at each place."""


class RobertaForCausalLM(lm_heads.CausalLM, backbone=RobertaModel, head=OUTPUT):
    """Which token comes next."""


class RobertaForSequenceClassification(label_heads.SequenceClassification, backbone=RobertaModel, head=LABEL):
    """A label for a text."""


class RobertaForTokenClassification(label_heads.TokenClassification, backbone=RobertaModel, head=Classifier()):
    """A label for each token."""


class RobertaForQuestionAnswering(label_heads.QuestionAnswering, backbone=RobertaModel, head=SPAN):
    """Where the answer stands."""


class RobertaForMultipleChoice(label_heads.MultipleChoice, backbone=RobertaModel, head=CHOICE):
    """Which text is right."""
