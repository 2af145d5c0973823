"""Llama (Touvron et al., 2023) and the many models published in its format."""

from __future__ import annotations

from cutaway.config.architecture import Architecture
from cutaway.config.config import PretrainedConfig
from cutaway.families.llama_decoder import DEFAULTS, DERIVED, LABEL, SPAN, TOKEN, USED, WEIGHTS, WITHOUT_EFFECT, decoder
from cutaway.models import label_heads, lm_heads
from cutaway.models.backbone import Backbone
from cutaway.models.family import Family
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.outputs import BaseModelOutputWithPast


class LlamaConfig(PretrainedConfig):
    """Published fields: see `defaults`; also `rope_parameters`, or `rope_theta` and `rope_scaling`, and `head_dim`."""

    model_type = "llama"
    defaults = {
        **DEFAULTS, "vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048,
        "bos_token_id": 1, "eos_token_id": 2, "attention_bias": False, "mlp_bias": False,
    }  # fmt: skip
    derived = DERIVED
    used = USED
    without_effect = WITHOUT_EFFECT


def to_architecture(config: LlamaConfig) -> Architecture:
    """The published config -> Architecture."""
    bias = config.flag("attention_bias")
    return decoder(config, bias=bias, out_bias=bias, mlp_bias=config.flag("mlp_bias"))


FAMILY = Family(to_architecture, WEIGHTS, "model")


class LlamaPreTrainedModel(PreTrainedModel, config=LlamaConfig, prefix="model"):
    """Base for a user's own models around a `LlamaModel` called `model`."""


class LlamaModel(Backbone[BaseModelOutputWithPast], family=FAMILY, config=LlamaConfig, prefix="model"):
    """The base model: hidden states."""


class LlamaForCausalLM(lm_heads.CausalLM, backbone=LlamaModel, head=Output("lm_head")):
    """Which token comes next."""


class LlamaForSequenceClassification(label_heads.SequenceClassification, backbone=LlamaModel, head=LABEL):
    """A label for a text."""


class LlamaForTokenClassification(label_heads.TokenClassification, backbone=LlamaModel, head=TOKEN):
    """A label for each token."""


class LlamaForQuestionAnswering(
    label_heads.QuestionAnswering, backbone=LlamaModel, head=SPAN, prefix="transformer", published="transformer"
):
    """Where the answer stands."""
