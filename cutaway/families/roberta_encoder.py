"""What RoBERTa, XLM-RoBERTa and CamemBERT share: all but the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.config.architecture import Architecture, Learned
from cutaway.families import bert_encoder
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

DEFAULTS: dict[str, Any] = {
    **bert_encoder.DEFAULTS, "vocab_size": 50265, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2
}  # fmt: skip


def to_architecture(config: PretrainedConfig) -> Architecture:
    """The published config -> Architecture; the first position used is pad_token_id + 1."""
    offset = config.integer("pad_token_id", 0, 10_000_000) + 1
    positions = Learned(config.integer("max_position_embeddings", offset + 1, 10_000_000), offset, after_padding=True)
    return Architecture(
        bert_encoder.bert_stack(config, positions),
        pooler=True,
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


WITHOUT_EFFECT, REFUSED = bert_encoder.WITHOUT_EFFECT, bert_encoder.REFUSED
FAMILY = Family(to_architecture, bert_encoder.WEIGHTS, "roberta")
OUTPUT = Output("lm_head.decoder", bias="lm_head.bias", dense="lm_head.dense", norm="lm_head.layer_norm")
LABEL = Classifier("classifier.out_proj", pick="first", dense="classifier.dense", drops="both")
SPAN = Classifier("qa_outputs", drops="none")
CHOICE = Classifier(dropout=("hidden_dropout_prob",))
