"""Weights by address: the grammar of activations, for the layers that make them."""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import nn

from cutaway.adapters.name_patterns import beginnings, fits
from cutaway.errors import ConfigError, nearest
from cutaway.nn.engine_modules import EngineTree
from cutaway.nn.lora import layer_name
from cutaway.nn.published_layer import PublishedPart, part_names

_BLOCK = re.compile(r"(?:(encoder|decoder)\.)?blocks\.(\d+)\.")
HEAD = "logits"  # the head's own layers, whatever they are called


class ParameterAddresses:
    """Where each weight of a model stands.

    Attributes:
        names: {address: weight}, such as `blocks.3.attn.q.weight`, `embed.tokens.weight`, `classifier.weight`. A tied
            weight stands where it comes first, and that of an adapter at its layer (`blocks.3.attn.q.lora_A`).
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.names: dict[str, nn.Parameter] = {}
        self._head: set[str] = set()
        self._parts: dict[str, list[tuple[str, PublishedPart]]] = {}
        self._find()

    def _find(self) -> None:
        model, tree = self.model, EngineTree(self.model)
        prefix = str(getattr(model, "base_model_prefix", ""))
        has_base = bool(prefix) and prefix in dict(tree.named_children())
        parts = part_names(model)
        self.names, self._head, self._parts = {}, set(), {}
        for found, weight in tree.named_parameters():
            name = layer_name(model, found)
            if name != found and not weight.requires_grad:
                continue  # an adapter that rests
            places: list[tuple[str, PublishedPart | None]] = [*parts.get(name, ())] or [(name, None)]
            for place, part in places:
                own = place.removeprefix(f"{prefix}.") if has_base else place
                self.names[own] = weight
                if part is not None:
                    self._parts.setdefault(found, []).append((own, part))
                if has_base and own == place:
                    self._head.add(own)

    def _separate(self, chosen: Collection[str]) -> None:
        """Give the layers that are parts of a published one weights of their own, where not all of it is chosen."""
        among = [[own in chosen for own, _ in parts] for parts in self._parts.values()]
        lone = [parts[0][1] for parts, here in zip(self._parts.values(), among, strict=True) if len(set(here)) > 1]
        for part in lone:
            if part.is_fused:
                part.separate()
        if lone:
            self._find()

    @property
    def first_names(self) -> dict[str, nn.Parameter]:
        """{address: weight}, each weight at the first of its addresses."""
        firsts = {id(weight): name for name, weight in reversed(self.names.items())}
        return {name: weight for name, weight in self.names.items() if firsts[id(weight)] == name}

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
            chosen = self.matching(pattern)
            self._separate(chosen)
            for name in chosen:
                self.names[name].requires_grad_(False)

    def rates(self, base: float, decay: float, given: dict[str, float]) -> dict[str, float]:
        """{address: learning rate}: `base`, times `decay` for each layer above, unless a pattern of `given` fits."""
        for pattern in given:
            self._separate(self.matching(pattern))
        rates = dict.fromkeys(self.names, base)
        if decay != 1.0:
            depth = self.depth()
            top = max(depth.values())
            rates = {name: base * decay ** (top - depth[name]) for name in self.names}
        for pattern, rate in given.items():
            rates |= dict.fromkeys(self.matching(pattern), rate)
        return rates
