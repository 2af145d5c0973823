"""Adapters in PEFT's files: adapter_config.json and adapter_model.safetensors, under published names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from cutaway.adapters.targets import Spot, linear_spots, parts_of, spots, whole
from cutaway.errors import CheckpointError, ConfigError, nearest
from cutaway.hub.files import HubOptions, resolve
from cutaway.hub.folder_save import folder_save
from cutaway.jsonfile import read_json
from cutaway.nn.lora import Adapter, Lora, ReplacedLayer, training_dtype
from cutaway.nn.lora_config import LoraConfig

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_FRONT = "base_model.model."
_LEAF = re.compile(r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector(?:\.weight)?)")
_LORA = {"lora_A.weight": "A", "lora_B.weight": "B"}


def write(model: nn.Module, adapter: Adapter, folder: Path) -> None:
    """Write both files into `folder`, both or neither."""
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; save_adapter needs a folder.")
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    config, transposed = adapter.config, False
    for name, group in parts_of(linear_spots(model)).items():
        own = {s.path: part for s in group if isinstance(part := adapter.held.get(s.path), Lora)}
        if not own:
            continue
        first = next(iter(own.values()))
        transposed = transposed or group[0].source.transpose
        ranks[name], alphas[name] = first.lora_A.shape[0], first.alpha
        tensors[f"{_FRONT}{name}.lora_A.weight"] = first.lora_A
        rows = [own[s.path].lora_B if s.path in own else _nothing(s, first.lora_A) for s in group]
        tensors[f"{_FRONT}{name}.lora_B.weight"] = group[0].source.gather(rows)
        if config.use_dora:
            sizes = [own[s.path].magnitude if s.path in own else _length(s, first.lora_A) for s in group]
            tensors[f"{_FRONT}{name}.lora_magnitude_vector"] = group[0].source.gather(sizes)  # type: ignore[arg-type]
    saved: list[str] = []
    for spot in spots(model):
        part = adapter.held.get(spot.path)
        if isinstance(part, ReplacedLayer):
            saved.append(spot.source.name)
            for leaf, value in part.layer.named_parameters():
                tensors[f"{_FRONT}{spot.source.name}.{leaf}"] = spot.source.to_published([value])
    fields = {
        "peft_type": "LORA",
        "task_type": config.task_type,
        "base_model_name_or_path": str(model.name_or_path or "") or None,
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": list(ranks),
        "modules_to_save": saved or None,
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        "rank_pattern": {name: r for name, r in ranks.items() if r != config.r},
        "alpha_pattern": {name: a for name, a in alphas.items() if a != config.lora_alpha},
        "fan_in_fan_out": transposed,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }
    whole_tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with folder_save(folder) as save:
        save_file(whole_tensors, save.aside / WEIGHTS, {"format": "pt"})
        save.write_text(CONFIG, json.dumps(fields, indent=2) + "\n")


def _nothing(spot: Spot, a: Tensor) -> Tensor:
    """B of a part that the adapter leaves alone."""
    return a.new_zeros(_shape(spot)[0], a.shape[0])


def _shape(spot: Spot) -> tuple[int, int]:
    """[out, in]."""
    layer = spot.layer
    assert isinstance(layer, nn.Linear)
    return layer.out_features, layer.in_features


def _length(spot: Spot, a: Tensor) -> Tensor:
    return spot.layer.weight.detach().to(a.dtype).norm(dim=1)  # type: ignore[operator, no-any-return]


class _Found:
    """The tensors of an adapter by the published layers they belong to.

    low: {published layer: {"A", "B", "magnitude"}}. saved: {published layer: {"weight", "bias"}}.
    """

    def __init__(self, name: str | Path, **how: Unpack[HubOptions]) -> None:
        files = resolve(str(name), **how)
        path = files.require(CONFIG)
        self.config = LoraConfig.from_file(read_json(path, CheckpointError), str(path))
        weights = files.get(WEIGHTS)
        self.where = weights if weights is not None else files.get(PICKLED)
        if self.where is None:
            raise CheckpointError(f"{path.parent} has {CONFIG}, but neither {WEIGHTS} nor {PICKLED}.")
        self.low: dict[str, dict[str, Tensor]] = {}
        self.saved: dict[str, dict[str, Tensor]] = {}
        for key, value in _tensors(self.where).items():
            self._sort(key, value)
        if not self.low and not self.saved:
            raise self.wrong("it holds no tensors")
        for layer, parts in self.low.items():
            needed = {"A", "B", "magnitude"} if self.config.use_dora else {"A", "B"}
            if parts.keys() != needed:
                odd = sorted(needed ^ parts.keys())
                raise self.wrong(f"{layer} has {sorted(parts)}, but use_dora={self.config.use_dora} needs other: {odd}")

    def wrong(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: {why}. Load the adapter of this model, whole.")

    def _sort(self, key: str, value: Tensor) -> None:
        if not key.startswith(_FRONT):
            raise self.wrong(f"{key[:120]!r} does not begin with {_FRONT!r}, as PEFT's names do")
        if not value.is_floating_point():
            raise self.wrong(f"{key[:120]!r} holds {str(value.dtype).removeprefix('torch.')}, no weights")
        inner = key.removeprefix(_FRONT)
        leaf = _LEAF.fullmatch(inner)
        if leaf:
            self.low.setdefault(leaf[1], {})[_LORA.get(leaf[2], "magnitude")] = value
        elif "lora_" in inner:
            raise self.wrong(f"{key[:120]!r} is a kind of adapter that is not built (linear layers are)")
        else:
            layer, _, last = inner.rpartition(".")
            self.saved.setdefault(layer, {})[last] = value

    def named(self, model: Any, layer: str, known: dict[str, list[Spot]]) -> list[Spot]:
        """The layers of ours that a published one is, with or without the base model's prefix."""
        prefixes = {getattr(model, "published_prefix", ""), model.base_model_prefix} - {""}
        for name in (layer, *(layer.removeprefix(p + ".") for p in prefixes), *(f"{p}.{layer}" for p in prefixes)):
            if name in known:
                return known[name]
        raise self.wrong(f"{layer!r} is no such layer of {type(model).__name__}.{nearest(layer, known)}".rstrip("?."))

    def fit(self, name: str, value: Tensor, shape: list[int]) -> Tensor:
        """`value`, if it has this shape."""
        if list(value.shape) != shape:
            raise self.wrong(f"{name} has shape {list(value.shape)}, but the model asks for {shape}")
        return value

    def parts(self, model: nn.Module) -> dict[str, dict[str, Tensor]]:
        """{path of our layer: its tensors}: A, B and magnitude of its own rows, or its weights as we hold them."""
        found: dict[str, dict[str, Tensor]] = {}
        groups = parts_of(linear_spots(model))
        for layer, parts in self.low.items():
            group = self.named(model, layer, groups)
            width = _shape(group[0])[1]
            rows = sum(_shape(s)[0] for s in group)
            a = parts["A"]
            rank = a.shape[0] if a.dim() == 2 else 0
            if not 1 <= rank <= 4096:
                raise self.wrong(f"{layer}.lora_A has shape {list(a.shape)}; its rank must be 1 to 4096")
            self.fit(f"{layer}.lora_A", a, [rank, width])
            self.fit(f"{layer}.lora_B", parts["B"], [rows, rank])
            if "magnitude" in parts:
                self.fit(f"{layer}.lora_magnitude_vector", parts["magnitude"], [rows])
            for spot in group:
                # rows of a published layer are ours in the same order, however its weight is stored
                rows_of = replace(spot.source, transpose=False)
                found[spot.path] = {k: v if k == "A" else rows_of.from_published(v) for k, v in parts.items()}
        every = parts_of(spots(model))
        for layer, leaves in self.saved.items():
            group = self.named(model, layer, every)
            wanted = {k: p for k, p in group[0].layer._parameters.items() if p is not None}
            if len(group) > 1 or leaves.keys() != wanted.keys():
                raise self.wrong(f"{layer} is saved with {sorted(leaves)}, but the model has {sorted(wanted)} there")
            source = group[0].source
            found[group[0].path] = {
                k: source.from_published(self.fit(f"{layer}.{k}", v, source.stored_shape(wanted[k].shape)))
                for k, v in leaves.items()
            }
        return found


def _tensors(path: Path) -> dict[str, Tensor]:
    from cutaway.checkpoint.safetensors import SafetensorsFile
    from cutaway.checkpoint.torch_pickle import TorchFile

    file = SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)
    try:
        return {name: file.read(name).clone() for name in file.names()}
    finally:
        file.close()


@torch.inference_mode(False)
def read(
    model: nn.Module, name: str | Path, **how: Unpack[HubOptions]
) -> tuple[LoraConfig, dict[str, Lora | ReplacedLayer]]:
    """The config of a saved adapter, and what it holds for the layers of `model`."""
    found = _Found(name, **how)
    by_path = {s.path: s for s in spots(model)}
    held: dict[str, Lora | ReplacedLayer] = {}
    shared: dict[int, nn.Parameter] = {}
    for path, parts in found.parts(model).items():
        spot = by_path[path]
        if "A" not in parts:
            held[path] = whole(spot)
            _copy(held[path].layer._parameters, parts)  # type: ignore[union-attr]
            continue
        like: Tensor = spot.layer.weight  # type: ignore[assignment]

        def put(value: Tensor, like: Tensor = like) -> Tensor:
            return value.to(like.device, training_dtype(like))

        a = shared.setdefault(id(parts["A"]), nn.Parameter(put(parts["A"])))
        size = put(parts["magnitude"]).contiguous() if "magnitude" in parts else None
        b = nn.Parameter(put(parts["B"]).contiguous())
        held[path] = Lora(a, b, size, found.config, found.config.alpha(spot.source.name))
    ranks = {part.lora_A.shape[0] for part in held.values() if isinstance(part, Lora)}
    if len(ranks) == 1:
        found.config.r = ranks.pop()
    return found.config, held


def restore(model: nn.Module, adapter: Adapter, folder: str | Path) -> None:
    """Copy the numbers of a saved adapter into one that is there."""
    found = _Found(folder)
    parts = found.parts(model)
    for path, held in adapter.held.items():
        if path not in parts or isinstance(held, Lora) != ("A" in parts[path]):
            raise found.wrong(f"it holds nothing for {path}")
        if isinstance(held, Lora):
            own = {"A": held.lora_A, "B": held.lora_B, "magnitude": held.magnitude}
            for key, value in parts[path].items():
                target = own[key]
                if target is None or target.shape != value.shape:
                    raise found.wrong(f"{path} is changed by {key} {list(value.shape)} there, and otherwise here")
            _copy(own, parts[path])
        else:
            _copy(held.layer._parameters, parts[path])


@torch.no_grad()
def _copy(own: Mapping[str, Tensor | None], values: dict[str, Tensor]) -> None:
    for key, value in values.items():
        target = own[key]
        assert target is not None
        target.copy_(value)
