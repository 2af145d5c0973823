"""What Llama's decoder becomes when each feed-forward layer is many, of which a router takes a few."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cutaway.config.architecture import Architecture, Experts
from cutaway.config.config_fields import only
from cutaway.families import llama_decoder
from cutaway.nn.weight_map import Table

if TYPE_CHECKING:
    from cutaway.config.config import PretrainedConfig

DEFAULTS = {**llama_decoder.DEFAULTS, "num_experts_per_tok": 8, "norm_topk_prob": False}
WITHOUT_EFFECT = {
    **llama_decoder.WITHOUT_EFFECT,
    "router_aux_loss_coef": "of the loss that output_router_logits would add",
    "_experts_implementation": "how other software computes the same numbers",
}
REFUSED = {"output_router_logits": only(None, False)}


def with_experts(found: Architecture, config: PretrainedConfig, size: int) -> Architecture:
    """The architecture with experts of this inner size."""
    n = config.integer("num_experts", 1, 4096)
    experts = Experts(n, config.integer("num_experts_per_tok", 1, n), config.flag("norm_topk_prob"))
    feed_forward = replace(found.stack.feed_forward, size=size, experts=experts)
    return replace(found, stack=replace(found.stack, feed_forward=feed_forward))


def weights(architecture: Architecture) -> Table:
    """Llama's names, the router's, and each expert's."""
    experts = architecture.stack.feed_forward.experts
    assert experts is not None
    names = {name: theirs for name, theirs in llama_decoder.WEIGHTS.items() if ".mlp." not in name}
    names["blocks.{i}.mlp.router"] = "layers.{i}.mlp.gate"
    for e in range(experts.n):
        for part in ("gate", "up", "down"):
            names[f"blocks.{{i}}.mlp.experts.{e}.{part}"] = f"layers.{{i}}.mlp.experts.{e}.{part}_proj"
    return names
