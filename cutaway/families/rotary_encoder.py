"""BERT's encoder with rotary positions in place of learned ones, which several embedding models share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cutaway.config.architecture import Architecture, Learned
from cutaway.families import bert_encoder
from cutaway.families.rope import rotary
from cutaway.models.label_heads import Classifier
from cutaway.nn.weight_map import WeightSource, split

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

DEFAULTS: dict[str, Any] = {
    name: value
    for name, value in bert_encoder.DEFAULTS.items()
    if name not in ("is_decoder", "use_cache", "position_embedding_type", "add_cross_attention")
}
USED = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "original_max_position_embeddings")
WITHOUT_EFFECT = {
    **bert_encoder.WITHOUT_EFFECT,
    **dict.fromkeys(("use_cache", "is_decoder"), "these models read the whole text at once"),
}


def weights(block: str, attention: str, norms: tuple[str, str], embedding_norm: str) -> dict[str, str | WeightSource]:
    """The published names but for those of the feed-forward layer; queries, keys and values are one layer.

    Args:
        block: of the i-th block. attention: of the layer of queries, keys and values, and of the output, inside it.
        norms: after attention and after the feed-forward layer, inside the block. embedding_norm: in the model.
    """
    qkv, out = attention.split()
    return {
        "embed.tokens": "embeddings.word_embeddings",
        "embed.types": "embeddings.token_type_embeddings",
        "embed.norm": embedding_norm,
        **{f"blocks.{{i}}.attn.{part}": split(f"{block}.{qkv}", n, 3) for n, part in enumerate("qkv")},
        "blocks.{i}.attn.o": f"{block}.{out}",
        "blocks.{i}.attn_norm": f"{block}.{norms[0]}",
        "blocks.{i}.mlp_norm": f"{block}.{norms[1]}",
        "pooler.dense": "pooler.dense",
    }


SPAN = Classifier("qa_outputs", drops="none")


def rotary_encoder(
    config: PretrainedConfig, base: float, *, bias: bool, gated: bool, mlp_dropout: bool = False
) -> Architecture:
    """The post-norm encoder of Devlin et al. (2019), its words' places told by rotation (Su et al., 2021).

    Args:
        base: the theta of a config that gives none. bias: of attention and of the last feed-forward layer.
        gated: whether the feed-forward layer has a gate, which goes with no bias before it.
        mlp_dropout: whether what the feed-forward layer makes inside is dropped at random too.
    """
    stack = bert_encoder.bert_stack(config, Learned(1))
    given = config.stated("head_dim") is not None
    size = config.integer("head_dim", 1, 4096) if given else stack.attention.head_size
    attention = replace(stack.attention, head_size=size, scale=size**-0.5, bias=bias, out_bias=bias)
    feed_forward = replace(
        stack.feed_forward,
        gated=gated,
        bias=not gated,
        down_bias=bias,
        dropout=stack.dropout if mlp_dropout else 0.0,
    )
    return Architecture(
        replace(
            stack,
            embedding=replace(stack.embedding, positions=None, takes_types=True),
            attention=attention,
            feed_forward=feed_forward,
            positions=rotary(config, size, base=base),
            causal=False,
        ),
        pooler=True,
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )
