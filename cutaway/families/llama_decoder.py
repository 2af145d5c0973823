"""The decoder that Llama published, with its config fields and layer names; many families are variants of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cutaway.config.architecture import ACTIVATIONS, Architecture, Attention, Embedding, FeedForward, Norm, Stack
from cutaway.errors import ConfigError
from cutaway.families.layer_types import layer_types
from cutaway.families.rope import rotary
from cutaway.families.rope_table import derived_rope
from cutaway.models.label_heads import Classifier

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

DEFAULTS: dict[str, Any] = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": None,
    "hidden_act": "silu", "initializer_range": 0.02, "rms_norm_eps": 1e-6, "use_cache": True,
    "tie_word_embeddings": False, "attention_dropout": 0.0,
}  # fmt: skip

USED = (
    "head_dim", "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor",
    "original_max_position_embeddings", "classifier_dropout", "hidden_dropout",
)  # fmt: skip
DERIVED: dict[str, object] = {
    "num_key_value_heads": lambda config: config.num_attention_heads,
    "head_dim": lambda config: config.hidden_size // config.num_attention_heads,
    "pretraining_tp": 1,
    **derived_rope(),
}
WINDOWS = ("sliding_window", "layer_types")
WITHOUT_EFFECT = dict.fromkeys(("is_llama_config", "max_window_layers"), "of other software; nobody reads it here")

WEIGHTS = {
    "embed.tokens": "embed_tokens",
    "blocks.{i}.attn.q": "layers.{i}.self_attn.q_proj",
    "blocks.{i}.attn.k": "layers.{i}.self_attn.k_proj",
    "blocks.{i}.attn.v": "layers.{i}.self_attn.v_proj",
    "blocks.{i}.attn.o": "layers.{i}.self_attn.o_proj",
    "blocks.{i}.attn.q_norm": "layers.{i}.self_attn.q_norm",
    "blocks.{i}.attn.k_norm": "layers.{i}.self_attn.k_norm",
    "blocks.{i}.mlp.gate": "layers.{i}.mlp.gate_proj",
    "blocks.{i}.mlp.up": "layers.{i}.mlp.up_proj",
    "blocks.{i}.mlp.down": "layers.{i}.mlp.down_proj",
    "blocks.{i}.attn_norm": "layers.{i}.input_layernorm",
    "blocks.{i}.mlp_norm": "layers.{i}.post_attention_layernorm",
    "final_norm": "norm",
}
LABEL = Classifier("score", pick="last", drops="none", bias=False)
TOKEN = Classifier("score", dropout=("classifier_dropout", "hidden_dropout"), usual=0.1)
SPAN = Classifier("qa_outputs", drops="none")


def windows(config: PretrainedConfig, slides: Callable[[int], bool]) -> tuple[int | None, ...]:
    """How far each layer sees, from `layer_types` where it is given, else `sliding_window` in the layers that slide."""
    types = layer_types(config, slides)
    if "sliding_attention" not in types:
        return ()
    window = config.integer("sliding_window", 1, 100_000_000)
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def decoder(
    config: PretrainedConfig,
    *,
    bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    slides: Callable[[int], bool] = lambda i: False,
    activation: str = "hidden_act",
    gated: bool = True,
    norm: Norm | None = None,
    theta: float = 10_000.0,
) -> Architecture:
    """The pre-norm decoder of Touvron et al. (2023).

    Args:
        bias, out_bias, mlp_bias: whether queries, keys and values, the attention's output, the feed-forward layer have
            a bias.
        slides: whether the i-th layer sees only the last `sliding_window` tokens; `layer_types` goes before it.
        activation: the field that names it. gated: whether there is a gate. norm: None for an RMS norm.
        theta: the base of rotary frequencies of a config that gives none.

    Raises:
        ConfigError: a field is out of bounds, or heads cannot be shared as it says.
    """
    n_heads = config.integer("num_attention_heads", 1, 1024)
    n_kv_heads = n_heads if config.num_key_value_heads is None else config.integer("num_key_value_heads", 1, n_heads)
    if n_heads % n_kv_heads:
        raise ConfigError(f"num_key_value_heads is {n_kv_heads}, which does not divide num_attention_heads, {n_heads}.")
    given = config.stated("head_dim") is not None
    size = config.integer("head_dim", 1, 4096) if given else config.divided("hidden_size", "num_attention_heads")
    return Architecture(
        Stack(
            n_layers=config.integer("num_hidden_layers", 1, 1000),
            hidden_size=config.integer("hidden_size", 1, 65_536),
            embedding=Embedding(vocab_size=config.integer("vocab_size", 1, 10_000_000), pad_id=config.pad_token_id),
            attention=Attention(
                n_heads,
                n_kv_heads,
                size,
                size**-0.5,
                bias=bias,
                out_bias=out_bias,
                dropout=config.number("attention_dropout", 0.0, 1.0),
            ),
            feed_forward=FeedForward(
                config.integer("intermediate_size", 1, 1_000_000),
                ACTIVATIONS[config.choice(activation, ACTIVATIONS)],
                gated=gated,
                bias=mlp_bias,
            ),
            norm=norm or Norm("rms", config.number("rms_norm_eps", 0.0, 1.0)),
            norm_place="pre",
            final_norm=True,
            causal=True,
            positions=rotary(config, size, base=theta),
            windows=windows(config, slides),
        ),
        init_std=config.number("initializer_range", 0.0, 10.0),
        tied_output=config.flag("tie_word_embeddings"),
    )
