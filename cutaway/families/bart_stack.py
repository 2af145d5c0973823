"""The encoder and decoder that BART published, with its config fields and layer names; several families vary them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.config.architecture import (
    ACTIVATIONS,
    Architecture,
    Attention,
    Embedding,
    FeedForward,
    Learned,
    Norm,
    Stack,
)
from cutaway.config.config_fields import only
from cutaway.models.label_heads import Classifier
from cutaway.nn.weight_map import WeightSource, tied

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

DEFAULTS: dict[str, Any] = {
    "vocab_size": 50265, "max_position_embeddings": 1024, "d_model": 1024, "encoder_layers": 12,
    "encoder_ffn_dim": 4096, "encoder_attention_heads": 16, "decoder_layers": 12, "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16, "activation_function": "gelu", "dropout": 0.1, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "init_std": 0.02, "scale_embedding": False, "use_cache": True,
    "is_encoder_decoder": True,
}  # fmt: skip
ATTRIBUTES = {
    "hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads", "num_hidden_layers": "encoder_layers"
}  # fmt: skip
WITHOUT_EFFECT = dict.fromkeys(
    (
        "normalize_before", "normalize_embedding", "add_bias_logits", "add_final_layer_norm", "extra_pos_embeddings",
        "static_position_embeddings", "force_bos_token_to_be_generated", "classif_dropout",
    ),
    "of an older version; the family says it",
)  # fmt: skip
TRAINED_WITH = dict.fromkeys(("encoder_layerdrop", "decoder_layerdrop"), only(None, 0, 0.0))


def _stack(
    config: PretrainedConfig,
    side: str,
    positions: Learned,
    vocab_size: str,
    *,
    norm_first: bool,
    pre: bool,
    scaled: bool,
) -> Stack:
    hidden, n_heads = config.integer("d_model", 1, 65_536), config.integer(f"{side}_attention_heads", 1, 1024)
    size = config.divided("d_model", f"{side}_attention_heads")
    norm = Norm("layer", 1e-5)
    dropout = config.number("dropout", 0.0, 1.0)
    decoder = side == "decoder"
    return Stack(
        n_layers=config.integer(f"{side}_layers", 1, 1000),
        hidden_size=hidden,
        embedding=Embedding(
            vocab_size=config.integer(vocab_size, 1, 10_000_000),
            positions=positions,
            norm=norm if norm_first else None,
            scale=hidden**0.5 if config.flag("scale_embedding") else 1.0,
            pad_id=config.pad_token_id,
            dropout=dropout,
            scales_table=scaled,
            scales_inputs=decoder and not scaled,  # as upstream, which leaves the encoder's as they are
        ),
        attention=Attention(n_heads, n_heads, size, size**-0.5, dropout=config.number("attention_dropout", 0.0, 1.0)),
        feed_forward=FeedForward(
            config.integer(f"{side}_ffn_dim", 1, 1_000_000),
            ACTIVATIONS[config.choice("activation_function", ACTIVATIONS)],
            dropout=config.number("activation_dropout", 0.0, 1.0),
        ),
        norm=norm,
        norm_place="pre" if pre else "post",
        final_norm=pre,
        causal=decoder,
        cross=decoder,
        dropout=dropout,
        float16_bound="" if decoder else "blocks",
    )


def bart_stacks(
    config: PretrainedConfig,
    *,
    fixed: bool = False,
    positions: Learned | None = None,
    embedding_norm: bool = True,
    pre: bool = False,
    scales_table: bool = True,
    shared_tokens: bool = True,
) -> Architecture:
    """The encoder-decoder of Lewis et al. (2020).

    Args:
        fixed: whether positions are sines and cosines, not trained (and without BART's two spare rows).
        positions: of a kind of the family's own.
        embedding_norm: whether what enters the first block is normed.
        pre: whether norms come before the layers, and after the last block.
        scales_table: whether the factor on token vectors, if any, is the table's own.
        shared_tokens: whether the decoder has the encoder's vocabulary, not one of `decoder_vocab_size` tokens.
    """
    if positions is None:
        size = config.integer("max_position_embeddings", 1, 10_000_000)
        positions = Learned(size, fixed=True) if fixed else Learned(size, offset=2)
    kind = {"norm_first": embedding_norm, "pre": pre, "scaled": scales_table}
    written = "vocab_size" if shared_tokens else "decoder_vocab_size"
    return Architecture(
        _stack(config, "encoder", positions, "vocab_size", **kind),
        decoder=_stack(config, "decoder", positions, written, **kind),
        init_std=config.number("init_std", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
        shared_tokens=shared_tokens,
    )


def _names(side: str) -> dict[str, str | WeightSource]:
    parts = {"embed.positions": "embed_positions"}
    for ours, theirs in (("attn", "self_attn"), ("cross", "encoder_attn")):
        for short, long in (("k", "k_proj"), ("v", "v_proj"), ("q", "q_proj"), ("o", "out_proj")):
            parts[f"blocks.{{i}}.{ours}.{short}"] = f"layers.{{i}}.{theirs}.{long}"
        parts[f"blocks.{{i}}.{ours}_norm"] = f"layers.{{i}}.{theirs}_layer_norm"
    parts |= {
        "blocks.{i}.mlp.up": "layers.{i}.fc1",
        "blocks.{i}.mlp.down": "layers.{i}.fc2",
        "blocks.{i}.mlp_norm": "layers.{i}.final_layer_norm",
        "embed.norm": "layernorm_embedding",
        "final_norm": "layer_norm",
    }
    names: dict[str, str | WeightSource] = {f"{side}.embed.tokens": tied("shared", f"{side}.embed_tokens")}
    return names | {f"{side}.{ours}": f"{side}.{theirs}" for ours, theirs in parts.items()}


WEIGHTS = {**_names("encoder"), **_names("decoder")}
APART = {**WEIGHTS, **{f"{side}.embed.tokens": f"{side}.embed_tokens" for side in ("encoder", "decoder")}}
LABEL = Classifier(
    "classification_head.out_proj", "eos", "classification_head.dense", dropout=("classifier_dropout",), drops="both"
)
SPAN = Classifier("qa_outputs", drops="none")
