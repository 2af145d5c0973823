"""Weights by address: the grammar of activations, for the layers that make them."""

from __future__ import annotations

import re

from torch import nn

from cutaway.adapters.name_patterns import beginnings, fits
from cutaway.errors import ConfigError, nearest
from cutaway.nn.lora import layer_name

_BLOCK = re.compile(r"(?:(encoder|decoder)\.)?blocks\.(\d+)\.")
HEAD = "logits"  # the head's own layers, whatever they are called


class ParameterAddresses:
    """Where each weight of a model stands.

    Attributes:
        names: {address: weight}, such as `blocks.3.attn.q.weight`, `embed.tokens.weight`, `classifier.weight`. A tied
            weight stands where it comes first, and that of an adapter at its layer (`blocks.3.attn.q.lora_A`).
    """

    def __init__(self, model: nn.Module) -> None:
        prefix = str(getattr(model, "base_model_prefix", ""))
        has_base = bool(prefix) and prefix in dict(model.named_children())
        self.names: dict[str, nn.Parameter] = {}
        self._head: set[str] = set()
        for found, weight in model.named_parameters():
            name = layer_name(model, found)
            if name != found and not weight.requires_grad:
                continue  # an adapter that rests
            own = name.removeprefix(f"{prefix}.") if has_base else name
            self.names[own] = weight
            if has_base and own == name:
                self._head.add(own)

    def matching(self, pattern: str) -> list[str]:
        """The addresses that `pattern` names: a beginning, with `*` in a step, and `0-3` for a range of blocks.

        `logits` names all layers of the head.

        Raises:
            ConfigError: there are none; the nearest are listed.
        """
        found = sorted(self._head) if pattern == HEAD else [n for n in self.names if fits(n, pattern)]
        if not found:
            raise ConfigError(
                f"no weight of this model stands at {pattern!r}.{nearest(pattern, beginnings(self.names))}"
            )
        return found

    def depth(self) -> dict[str, int]:
        """{address: how many layers lie below}: 0 for the embeddings, 1 for the first block, the most for the head.

        The blocks of a decoder lie above those of its encoder.

        Raises:
            ConfigError: the model has no blocks.
        """
        found = {name: _BLOCK.match(name) for name in self.names}
        blocks = {n: (m[1] == "decoder", int(m[2])) for n, m in found.items() if m}
        if not blocks:
            raise ConfigError("layer_lr_decay needs a model with blocks; this one has none. Use learning_rates.")
        height = {block: i + 1 for i, block in enumerate(sorted(set(blocks.values())))}
        top = len(height) + 1

        def of(name: str) -> int:
            if name in blocks:
                return height[blocks[name]]
            return 0 if "embed" in name.split(".") else top

        return {name: of(name) for name in self.names}

    def freeze(self, patterns: list[str]) -> None:
        """Set requires_grad=False on all weights that the patterns name."""
        for pattern in patterns:
            for name in self.matching(pattern):
                self.names[name].requires_grad_(False)

    def rates(self, base: float, decay: float, given: dict[str, float]) -> dict[str, float]:
        """{address: learning rate}: `base`, times `decay` for each layer above, unless a pattern of `given` fits."""
        rates = dict.fromkeys(self.names, base)
        if decay != 1.0:
            depth = self.depth()
            top = max(depth.values())
            rates = {name: base * decay ** (top - depth[name]) for name in self.names}
        for pattern, rate in given.items():
            rates |= dict.fromkeys(self.matching(pattern), rate)
        return rates
