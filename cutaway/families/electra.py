"""ELECTRA (Clark et al., 2020): BERT's encoder over narrower tables, as a generator and a discriminator."""

from __future__ import annotations

from cutaway.config.architecture import Architecture, Learned
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import only
from cutaway.families.bert_encoder import DEFAULTS, REFUSED, WEIGHTS, WITHOUT_EFFECT, bert_stack
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutput


class ElectraConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "electra"
    defaults = {
        **DEFAULTS, "embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024,
        "summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu", "summary_last_dropout": 0.1,
    }  # fmt: skip
    used = ("is_decoder",)
    without_effect = WITHOUT_EFFECT
    refused = {
        **REFUSED,
        "summary_type": only("first"),
        "summary_first_dropout": only(None, False, 0, 0.0),
        "summary_proj_to_labels": only(None, False),
    }


def to_architecture(config: ElectraConfig) -> Architecture:
    """The published config -> Architecture."""
    width = config.integer("embedding_size", 1, 65_536)
    positions = Learned(config.integer("max_position_embeddings", 1, 10_000_000))
    return Architecture(
        bert_stack(config, positions, None if width == config.hidden_size else width),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


_EMBED = {ours: theirs for ours, theirs in WEIGHTS.items() if ours.startswith("embed.")}
_TABLE = _EMBED | {"embed.project": "embeddings_project"} | WEIGHTS
FAMILY = Family(to_architecture, _TABLE, "electra")
_OUTPUT = Output(
    "generator_lm_head", bias="", dense="generator_predictions.dense", norm="generator_predictions.LayerNorm"
)
_REPLACED = Classifier(
    "discriminator_predictions.dense_prediction",
    dense="discriminator_predictions.dense",
    activation_field="hidden_act",
    drops="none",
)
_LABEL = Classifier("classifier.out_proj", "first", "classifier.dense", "gelu", drops="both")
_SPAN = Classifier("qa_outputs", drops="none")
_CHOICE = Classifier(
    "classifier",
    "first",
    "sequence_summary.summary",
    activation_field="summary_activation",
    dense_field="summary_use_proj",
    dropout=("summary_last_dropout",),
    drops="after",
)


class ElectraPreTrainedModel(PreTrainedModel, config=ElectraConfig, prefix="electra"):
    """Base for a user's own models around an `ElectraModel` called `electra`."""


class ElectraModel(Backbone[BaseModelOutput], family=FAMILY, config=ElectraConfig, prefix="electra"):
    """The base model: hidden states."""


class ElectraForMaskedLM(lm_heads.MaskedLM, backbone=ElectraModel, head=_OUTPUT):
    """Which token belongs at each place."""


class ElectraForCausalLM(lm_heads.CausalLM, backbone=ElectraModel, head=_OUTPUT):
    """Which token comes next."""


class ElectraForPreTraining(label_heads.ReplacedTokens, backbone=ElectraModel, head=_REPLACED):
    """Which tokens another model put there: the discriminator."""


class ElectraForSequenceClassification(label_heads.SequenceClassification, backbone=ElectraModel, head=_LABEL):
    """A label for a text."""


class ElectraForTokenClassification(label_heads.TokenClassification, backbone=ElectraModel, head=Classifier()):
    """A label for each token."""


class ElectraForQuestionAnswering(label_heads.QuestionAnswering, backbone=ElectraModel, head=_SPAN):
    """Where the answer stands."""


class ElectraForMultipleChoice(label_heads.MultipleChoice, backbone=ElectraModel, head=_CHOICE):
    """Which text is right."""
