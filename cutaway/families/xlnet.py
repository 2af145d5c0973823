"""XLNet (Yang et al., 2019): BERT's blocks, with scores by distances and segments, read in any order of words."""

from __future__ import annotations

from cutaway.config.architecture import (
    ACTIVATIONS,
    Architecture,
    Attention,
    DistanceWaves,
    Embedding,
    FeedForward,
    Norm,
    Stack,
)
from cutaway.config.config import PretrainedConfig
from cutaway.config.config_fields import only
from cutaway.models import stream_heads
from cutaway.models.family import Family
from cutaway.models.label_heads import Classifier
from cutaway.models.lm_heads import Output
from cutaway.models.pretrained import PreTrainedModel
from cutaway.models.two_streams import TwoStreams


class XLNetConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "xlnet"
    attribute_map = {
        "n_token": "vocab_size",
        "hidden_size": "d_model",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }
    defaults = {
        "vocab_size": 32000, "d_model": 1024, "n_layer": 24, "n_head": 16, "d_inner": 4096, "d_head": None,
        "ff_activation": "gelu", "attn_type": "bi", "initializer_range": 0.02, "layer_norm_eps": 1e-12, "dropout": 0.1,
        "mem_len": 512, "reuse_len": None, "use_mems_eval": True, "use_mems_train": False, "bi_data": False,
        "clamp_len": -1, "same_length": False, "summary_type": "last", "summary_use_proj": True,
        "summary_activation": "tanh", "summary_last_dropout": 0.1, "start_n_top": 5, "end_n_top": 5,
        "pad_token_id": 5, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    without_effect = {
        "same_length": "of models that read one way",
        "untie_r": "the published class has the layers' own biases whatever it says",
        **dict.fromkeys(("start_n_top", "end_n_top"), "of a head with a search for spans, which is not built"),
    }
    refused = {"attn_type": only("bi"), "bi_data": only(False)}


def to_architecture(config: XLNetConfig) -> Architecture:
    """The published config -> Architecture."""
    hidden, n_heads = config.integer("d_model", 1, 65_536), config.integer("n_head", 1, 1024)
    size, rate = config.divided("d_model", "n_head"), config.number("dropout", 0.0, 1.0)
    if config.d_head is not None:
        config.integer("d_head", size, size)
    for field in ("use_mems_eval", "use_mems_train"):
        config.flag(field)
    for field in ("mem_len", "reuse_len"):
        if getattr(config, field) is not None:
            config.integer(field, -1, 10_000_000)
    return Architecture(
        Stack(
            n_layers=config.integer("n_layer", 1, 1000),
            hidden_size=hidden,
            embedding=Embedding(config.integer("vocab_size", 1, 10_000_000), dropout=rate),
            attention=Attention(
                n_heads, n_heads, size, size**-0.5, bias=False, out_bias=False, dropout=rate,
                distances=DistanceWaves(max(config.integer("clamp_len", -1, 10_000_000), 0), rate),
            ),
            feed_forward=FeedForward(
                config.integer("d_inner", 1, 1_000_000),
                ACTIVATIONS[config.choice("ff_activation", ACTIVATIONS)],
                dropout=rate,
            ),
            norm=Norm("layer", config.number("layer_norm_eps", 0.0, 1.0)),
            norm_place="post",
            dropout=rate,
        ),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )  # fmt: skip


WEIGHTS = {
    "embed.tokens": "word_embedding",
    "blocks.{i}.attn": "layer.{i}.rel_attn",
    "blocks.{i}.mlp_norm": "layer.{i}.ff.layer_norm",
    "blocks.{i}.mlp.up": "layer.{i}.ff.layer_1",
    "blocks.{i}.mlp.down": "layer.{i}.ff.layer_2",
}
FAMILY = Family(to_architecture, WEIGHTS, "transformer")
_PROJECTED = Classifier("logits_proj")


class XLNetPreTrainedModel(PreTrainedModel, config=XLNetConfig, prefix="transformer"):
    """Base for a user's own models around an `XLNetModel` called `transformer`."""


class XLNetModel(TwoStreams, family=FAMILY, config=XLNetConfig, prefix="transformer"): ...


class XLNetLMHeadModel(stream_heads.StreamLM, backbone=XLNetModel, head=Output("lm_loss", "")): ...


class XLNetForSequenceClassification(
    stream_heads.StreamSequenceClassification, backbone=XLNetModel, head=_PROJECTED
): ...


class XLNetForTokenClassification(
    stream_heads.StreamTokenClassification, backbone=XLNetModel, head=Classifier(drops="none")
): ...


class XLNetForMultipleChoice(stream_heads.StreamMultipleChoice, backbone=XLNetModel, head=_PROJECTED): ...


class XLNetForQuestionAnsweringSimple(
    stream_heads.StreamQuestionAnswering, backbone=XLNetModel, head=Classifier("qa_outputs", drops="none")
): ...
