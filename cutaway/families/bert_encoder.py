"""The encoder that BERT published, with its config fields and layer names; several families are variants of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.config.architecture import ACTIVATIONS, Attention, Embedding, FeedForward, Learned, Norm, Stack
from cutaway.config.config_fields import only
from cutaway.errors import ConfigError

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 512, "type_vocab_size": 2,
    "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    "position_embedding_type": "absolute", "classifier_dropout": None, "is_decoder": False,
    "add_cross_attention": False, "use_cache": True,
}  # fmt: skip

REFUSED = {"position_embedding_type": only("absolute")}
# families that have no decoder with cross-attention
ENCODERS_ONLY = {**REFUSED, "add_cross_attention": only(False)}
WITHOUT_EFFECT = dict.fromkeys(
    (
        "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
        "pooler_size_per_head", "pooler_type",
    ),
    "of an older version; nobody reads it",
)  # fmt: skip

WEIGHTS = {
    "embed.tokens": "embeddings.word_embeddings",
    "embed.positions": "embeddings.position_embeddings",
    "embed.types": "embeddings.token_type_embeddings",
    "embed.norm": "embeddings.LayerNorm",
    "blocks.{i}.attn.q": "encoder.layer.{i}.attention.self.query",
    "blocks.{i}.attn.k": "encoder.layer.{i}.attention.self.key",
    "blocks.{i}.attn.v": "encoder.layer.{i}.attention.self.value",
    "blocks.{i}.attn.o": "encoder.layer.{i}.attention.output.dense",
    "blocks.{i}.attn_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "blocks.{i}.cross.q": "encoder.layer.{i}.crossattention.self.query",
    "blocks.{i}.cross.k": "encoder.layer.{i}.crossattention.self.key",
    "blocks.{i}.cross.v": "encoder.layer.{i}.crossattention.self.value",
    "blocks.{i}.cross.o": "encoder.layer.{i}.crossattention.output.dense",
    "blocks.{i}.cross_norm": "encoder.layer.{i}.crossattention.output.LayerNorm",
    "blocks.{i}.mlp.up": "encoder.layer.{i}.intermediate.dense",
    "blocks.{i}.mlp.down": "encoder.layer.{i}.output.dense",
    "blocks.{i}.mlp_norm": "encoder.layer.{i}.output.LayerNorm",
    "pooler.dense": "pooler.dense",
}


def bert_stack(config: PretrainedConfig, positions: Learned, width: int | None = None) -> Stack:
    """The post-norm encoder of Devlin et al. (2019); width: of the tables, where a matrix leads on from them."""
    hidden = config.integer("hidden_size", 1, 65_536)
    n_heads = config.integer("num_attention_heads", 1, 1024)
    size = config.divided("hidden_size", "num_attention_heads")
    norm = Norm("layer", config.number("layer_norm_eps", 0.0, 1.0))
    dropout = config.number("hidden_dropout_prob", 0.0, 1.0)
    decoder = hasattr(config, "is_decoder") and config.flag("is_decoder")
    cross = hasattr(config, "add_cross_attention") and config.flag("add_cross_attention")
    if cross and not decoder:
        raise ConfigError("add_cross_attention is True, which only a decoder can have; set is_decoder=True too.")
    return Stack(
        n_layers=config.integer("num_hidden_layers", 1, 1000),
        hidden_size=hidden,
        embedding=Embedding(
            vocab_size=config.integer("vocab_size", 1, 10_000_000),
            positions=positions,
            n_types=config.integer("type_vocab_size", 0, 1000),
            norm=norm,
            pad_id=config.pad_token_id,
            dropout=dropout,
            width=width,
        ),
        attention=Attention(
            n_heads, n_heads, size, size**-0.5, dropout=config.number("attention_probs_dropout_prob", 0.0, 1.0)
        ),
        feed_forward=FeedForward(
            config.integer("intermediate_size", 1, 1_000_000), ACTIVATIONS[config.choice("hidden_act", ACTIVATIONS)]
        ),
        norm=norm,
        norm_place="post",
        causal=decoder,
        cross=cross,
        dropout=dropout,
    )
