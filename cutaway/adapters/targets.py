"""Which layers an adapter changes: addresses and published names -> what it holds for each."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cutaway.adapters.name_patterns import beginnings, fits
from cutaway.errors import ConfigError, nearest
from cutaway.nn.engine_modules import engine_modules
from cutaway.nn.linear import Linear, matrix_of
from cutaway.nn.lora import Lora, ReplacedLayer, first_a, training_dtype
from cutaway.nn.lora_config import LoraConfig
from cutaway.nn.published_layer import tensors_of_layer
from cutaway.nn.weight_map import WeightSource, layer_sources

_USUAL = (".attn.q", ".attn.v")
HEAD = "logits"


@dataclass(frozen=True)
class Spot:
    """One layer: its path in the model, its address, itself, and where it is published (the layer, not the weight)."""

    path: str
    address: str
    layer: nn.Module
    source: WeightSource

    @property
    def head(self) -> bool:
        """Whether it belongs to a model's head: its path has no base model in front."""
        return self.path == self.address


def spots(model: Any) -> list[Spot]:
    """Every layer with weights, in the model's order; each once."""
    where = layer_sources(model)
    prefix = model.base_model_prefix + "." if model.base_model is not model else ""
    found = []
    for path, layer in engine_modules(model):
        if path in where:
            found.append(Spot(path, path.removeprefix(prefix), layer, where[path]))
    return found


def matching(known: list[Spot], pattern: str, what: str) -> list[Spot]:
    """The layers that `pattern` names: the beginning of an address, the end of a published name, "logits" for the head.

    Raises:
        ConfigError: there are none; the nearest are listed.
    """
    found = [s for s in known if fits(s.address, pattern) or (pattern == HEAD and s.head)]
    found = found or [s for s in known if ("." + s.source.name).endswith("." + pattern)]
    if not found:
        names = [*beginnings(s.address for s in known), *{s.source.name.rpartition(".")[2] for s in known}]
        raise ConfigError(f"{what}: this model has no such layer at {pattern!r}.{nearest(pattern, names)}")
    return found


def linear_spots(model: nn.Module) -> list[Spot]:
    """The layers that can be changed."""
    return [s for s in spots(model) if isinstance(s.layer, nn.Linear)]


def parts_of(known: list[Spot]) -> dict[str, list[Spot]]:
    """{published layer: the layers of ours that it is, in order}."""
    found: dict[str, list[Spot]] = {}
    for spot in known:
        found.setdefault(spot.source.name, []).append(spot)
    return {name: sorted(group, key=lambda s: s.source.part) for name, group in found.items()}


def targets(known: list[Spot], config: LoraConfig) -> set[str]:
    """The paths that the config names."""
    if config.target_modules is None:
        found = {s.path for s in known if s.address.endswith(_USUAL)}
    else:
        found = set()
        for pattern in config.target_modules:
            inside = [s for s in known if "blocks" in s.address.split(".")]
            hits = inside if pattern == "all-linear" else matching(known, pattern, "target_modules")
            found |= {s.path for s in hits}
    if not found:
        raise ConfigError("target_modules names no layer of this model; list the addresses of linear layers.")
    return found


def new_parts(model: Any, config: LoraConfig) -> dict[str, Lora | ReplacedLayer]:
    """What a new adapter begins with; it changes nothing yet."""
    every = spots(model)
    known = [s for s in every if isinstance(s.layer, nn.Linear)]
    saved: dict[str, Spot] = {}
    for pattern in config.modules_to_save or []:
        saved |= {s.path: s for s in matching(every, pattern, "modules_to_save")}
    held: dict[str, Lora | ReplacedLayer] = {path: whole(spot) for path, spot in saved.items()}
    wanted = targets(known, config) - saved.keys()
    for name, group in parts_of(known).items():
        chosen = [s for s in group if s.path in wanted]
        if not chosen:
            continue
        like = matrix_of(chosen[0].layer)
        a = first_a(config.r, like.shape[1], like)
        for spot in chosen:
            own = matrix_of(spot.layer)
            b = torch.zeros(own.shape[0], config.r, dtype=a.dtype, device=own.device)
            size = own.detach().to(a.dtype).norm(dim=1) if config.use_dora else None
            held[spot.path] = Lora(a, nn.Parameter(b), size, config, config.alpha(name))
    return held


def whole(spot: Spot) -> ReplacedLayer:
    """A copy of a layer, to train in its place.

    Raises:
        ConfigError: it is published as part of another layer, so that no file could hold it.
    """
    if spot.source.n_parts > 1:
        raise ConfigError(
            f"modules_to_save: {spot.address} is published as a part of {spot.source.name}, and not saved alone."
        )
    layer = copy.copy(spot.layer)
    layer._forward_hooks = type(layer._forward_hooks)()
    layer.__dict__["part"] = None
    layer._parameters = {
        name: None if p is None else nn.Parameter(p.detach().to(training_dtype(p), copy=True))
        for name, p in tensors_of_layer(spot.layer).items()
    }
    if isinstance(layer, Linear):
        layer.site, layer.packed = None, copy.deepcopy(layer.packed)
    return ReplacedLayer(layer)
