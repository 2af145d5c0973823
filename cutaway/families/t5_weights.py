"""The published layer names of T5."""

from __future__ import annotations

from cutaway.config.architecture import Architecture
from cutaway.nn.weight_map import WeightSource, tied

_ENCODER = {
    "blocks.{i}.attn_norm": "block.{i}.layer.0.layer_norm",
    "blocks.{i}.attn.q": "block.{i}.layer.0.SelfAttention.q",
    "blocks.{i}.attn.k": "block.{i}.layer.0.SelfAttention.k",
    "blocks.{i}.attn.v": "block.{i}.layer.0.SelfAttention.v",
    "blocks.{i}.attn.o": "block.{i}.layer.0.SelfAttention.o",
    "relative": "block.0.layer.0.SelfAttention.relative_attention_bias",
    "blocks.{i}.attn.relative": "block.{i}.layer.0.SelfAttention.relative_attention_bias",
    "final_norm": "final_layer_norm",
}
_CROSS = {
    "blocks.{i}.cross_norm": "block.{i}.layer.1.layer_norm",
    "blocks.{i}.cross.q": "block.{i}.layer.1.EncDecAttention.q",
    "blocks.{i}.cross.k": "block.{i}.layer.1.EncDecAttention.k",
    "blocks.{i}.cross.v": "block.{i}.layer.1.EncDecAttention.v",
    "blocks.{i}.cross.o": "block.{i}.layer.1.EncDecAttention.o",
}


def _table(prefix: str, feed_forward: int, gated: bool, parts: dict[str, str]) -> dict[str, str]:
    inside = f"block.{{i}}.layer.{feed_forward}"
    names = {
        **parts,
        "blocks.{i}.mlp_norm": f"{inside}.layer_norm",
        "blocks.{i}.mlp.gate": f"{inside}.DenseReluDense.wi_0",
        "blocks.{i}.mlp.up": f"{inside}.DenseReluDense.wi_1" if gated else f"{inside}.DenseReluDense.wi",
        "blocks.{i}.mlp.down": f"{inside}.DenseReluDense.wo",
    }
    return {f"{prefix}{ours}": f"{prefix}{theirs}" for ours, theirs in names.items()}


def weights(architecture: Architecture) -> dict[str, str | WeightSource]:
    """The names depend on whether the feed-forward layer is gated."""
    gated = architecture.stack.feed_forward.gated
    return {
        "encoder.embed.tokens": tied("shared", "encoder.embed_tokens"),
        "decoder.embed.tokens": tied("shared", "decoder.embed_tokens"),
        **_table("encoder.", 1, gated, _ENCODER),
        **_table("decoder.", 2, gated, {**_ENCODER, **_CROSS}),
    }


def encoder_weights(architecture: Architecture) -> dict[str, str | WeightSource]:
    """The encoder alone keeps its published names."""
    table = _table("encoder.", 1, architecture.stack.feed_forward.gated, _ENCODER)
    names: dict[str, str | WeightSource] = {ours.removeprefix("encoder."): theirs for ours, theirs in table.items()}
    return names | {"embed.tokens": tied("shared", "encoder.embed_tokens")}
