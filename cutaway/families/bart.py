"""BART (Lewis et al., 2020)."""

from __future__ import annotations

from cutaway.architecture import ACTIVATIONS, Architecture, Attention, Embedding, FeedForward, Learned, Norm, Stack
from cutaway.config import PretrainedConfig
from cutaway.model import seq2seq
from cutaway.model.backbone import EncoderDecoder
from cutaway.model.family import Family
from cutaway.model.heads import Output
from cutaway.model.label_heads import Classifier
from cutaway.model.pretrained import PreTrainedModel
from cutaway.model.weights import Source, tied


class BartConfig(PretrainedConfig):
    """Published fields: see `defaults`."""

    model_type = "bart"
    attribute_map = {"hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads"}
    defaults = {
        "vocab_size": 50265, "max_position_embeddings": 1024, "d_model": 1024, "encoder_layers": 12,
        "encoder_ffn_dim": 4096, "encoder_attention_heads": 16, "decoder_layers": 12, "decoder_ffn_dim": 4096,
        "decoder_attention_heads": 16, "activation_function": "gelu", "dropout": 0.1, "attention_dropout": 0.0,
        "activation_dropout": 0.0, "init_std": 0.02, "classifier_dropout": 0.0, "scale_embedding": False,
        "use_cache": True, "num_labels": 3, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
        "is_encoder_decoder": True, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
    }  # fmt: skip


def _stack(config: BartConfig, side: str) -> Stack:
    hidden, n_heads = config.integer("d_model", 1, 65_536), config.integer(f"{side}_attention_heads", 1, 1024)
    size = config.divided("d_model", f"{side}_attention_heads")
    norm = Norm("layer", 1e-5)
    dropout = config.number("dropout", 0.0, 1.0)
    decoder = side == "decoder"
    return Stack(
        n_layers=config.integer(f"{side}_layers", 1, 1000),
        hidden_size=hidden,
        embedding=Embedding(
            vocab_size=config.integer("vocab_size", 1, 10_000_000),
            positions=Learned(config.integer("max_position_embeddings", 1, 10_000_000), offset=2),
            norm=norm,
            scale=hidden**0.5 if config.flag("scale_embedding") else 1.0,
            pad_id=config.pad_token_id,
            dropout=dropout,
        ),
        attention=Attention(n_heads, n_heads, size, size**-0.5, dropout=config.number("attention_dropout", 0.0, 1.0)),
        feed_forward=FeedForward(
            config.integer(f"{side}_ffn_dim", 1, 1_000_000),
            ACTIVATIONS[config.choice("activation_function", ACTIVATIONS)],
            dropout=config.number("activation_dropout", 0.0, 1.0),
        ),
        norm=norm,
        norm_place="post",
        causal=decoder,
        cross=decoder,
        dropout=dropout,
    )


def to_architecture(config: BartConfig) -> Architecture:
    """The published config -> Architecture."""
    return Architecture(
        _stack(config, "encoder"),
        decoder=_stack(config, "decoder"),
        init_std=config.number("init_std", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )


def _names(side: str) -> dict[str, str | Source]:
    parts = {
        "embed.positions": "embed_positions",
        "embed.norm": "layernorm_embedding",
        "blocks.{i}.attn_norm": "layers.{i}.self_attn_layer_norm",
        "blocks.{i}.cross_norm": "layers.{i}.encoder_attn_layer_norm",
        "blocks.{i}.mlp.up": "layers.{i}.fc1",
        "blocks.{i}.mlp.down": "layers.{i}.fc2",
        "blocks.{i}.mlp_norm": "layers.{i}.final_layer_norm",
    }
    for ours, theirs in (("attn", "self_attn"), ("cross", "encoder_attn")):
        for short, long in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
            parts[f"blocks.{{i}}.{ours}.{short}"] = f"layers.{{i}}.{theirs}.{long}"
    names: dict[str, str | Source] = {f"{side}.{ours}": f"{side}.{theirs}" for ours, theirs in parts.items()}
    return names | {f"{side}.embed.tokens": tied("shared", f"{side}.embed_tokens")}


WEIGHTS = {**_names("encoder"), **_names("decoder")}
FAMILY = Family(to_architecture, WEIGHTS, "model")
_LABEL = Classifier(
    "classification_head.out_proj", "eos", "classification_head.dense", dropout=("classifier_dropout",), drops="both"
)
_SPAN = Classifier("qa_outputs", drops="none")


class BartPreTrainedModel(PreTrainedModel, config=BartConfig, prefix="model"):
    """Base for a user's own models around a `BartModel` called `model`."""


class BartModel(EncoderDecoder, family=FAMILY, config=BartConfig, prefix="model", shifts_input=True):
    """The base model: hidden states."""


class BartForConditionalGeneration(
    seq2seq.Seq2SeqLM, backbone=BartModel, head=Output("lm_head"), logits_bias="final_logits_bias"
):
    """A text from a text."""


class BartForSequenceClassification(seq2seq.Seq2SeqClassification, backbone=BartModel, head=_LABEL):
    """A label for a text."""


class BartForQuestionAnswering(seq2seq.Seq2SeqQuestionAnswering, backbone=BartModel, head=_SPAN):
    """Where the answer stands."""
